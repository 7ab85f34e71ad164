#include "evidence/lab_bench.h"

#include <ATen/core/grad_mode.h>

#include <cstdio>
#include <stdexcept>

#include "attention/flex/parse.h"
#include "attention/flex/scores.h"
#include "evidence/bars.h"
#include "evidence/flash_lab.h"
#include "evidence/passes.h"
#include "evidence/rows.h"
#include "trainer/machine.h"
#include "trainer/markdown.h"
#include "trainer/memory.h"
#include "trainer/operation_watch.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

void check(const LabOptions& o) {
  const std::pair<const char*, int64_t> sizes[] = {
      {"batch", o.batch},       {"heads", o.heads},       {"seq-len", o.seq_len},
      {"head-dim", o.head_dim}, {"doc-span", o.doc_span}, {"block-size", o.block_size}};
  for (const auto& [name, value] : sizes) {
    if (value >= 1) continue;
    throw std::invalid_argument(c10::str("[bench] --", name, " must be at least 1, is ", value));
  }
  if (o.head_dim > 256) {
    throw std::invalid_argument(
        c10::str("[bench] --head-dim must be at most 256, is ", o.head_dim));
  }
  if (o.block_size % 16 != 0) {
    throw std::invalid_argument(
        c10::str("[bench] --block-size must be a multiple of 16, is ", o.block_size));
  }
}

std::string gpu_of(const LabOptions& options) {
  if (options.device.is_cuda()) return "the labs ran on " + options.device.str();
  const Availability gpu = flash_available("cuda");
  if (gpu.available) return "the GPU part is skipped: --device cuda runs it";
  return "the GPU part is skipped: " + gpu.reason.substr(0, gpu.reason.find(';'));
}

// What it asks of LibTorch, and whether a tensor of all pairs was among it.
void add_operations(ordered_json& row, const Contender& contender, int64_t length) {
  const OperationWatch watch(length, length);
  contender.run();
  const Operations seen = watch.so_far();
  row["operations"] = seen.dispatched;
  row["queries_by_keys_tensor"] =
      seen.matrix.empty() ? ordered_json(nullptr) : ordered_json(seen.matrix);
}

class Lab {
 public:
  explicit Lab(const LabOptions& options)
      : options_(options), gemm_(gemm_tflops(options.dtype, measure_options())) {}

  ordered_json run() {
    show_progress(1, 2, "flash lab");
    flash_lab();
    show_progress(2, 2, "flex lab");
    flex_lab();
    const int64_t pairs = options_.batch * options_.heads * options_.seq_len * options_.seq_len;
    return {{"machine", describe_environment(options_.device)},
            {"gemm_tflops", gemm_},
            {"gpu", gpu_of(options_)},
            {"pairs_bytes", pairs * static_cast<int64_t>(at::elementSize(options_.dtype))},
            {"rows", rows_}};
  }

 private:
  MeasureOptions measure_options() const {
    return {.repeat = options_.repeat, .device = options_.device};
  }

  std::string sizes() const {
    return c10::str("B", options_.batch, " H", options_.heads, " T", options_.seq_len, " D",
                    options_.head_dim);
  }

  void add_pair(const std::string& what, const std::string& pass, const std::string& fused,
                const Measured& eager, const Measured& fast) {
    const RowName name = {what, "vanilla", pass, options_.device, options_.dtype};
    RowName fused_name = name;
    fused_name.backend = fused;
    rows_.push_back(measured_row(name, eager));
    add_ratio(rows_.back(), fused, eager, fast);
    rows_.push_back(measured_row(fused_name, fast));
    add_ratio(rows_.back(), "vanilla", fast, eager);
  }

  void add_difference(const OutputComparison& outputs) {
    rows_.back()["max_difference"] = outputs.max_difference;
    rows_.back()["mean_difference"] = outputs.mean_difference;
    rows_.back()["allclose"] = outputs.allclose;
  }

  void flash_lab() {
    const AttentionProblem problem = {.B = options_.batch,
                                      .T = options_.seq_len,
                                      .H = options_.heads,
                                      .D = options_.head_dim,
                                      .dtype = options_.dtype,
                                      .device = options_.device.str(),
                                      .repeat = options_.repeat};
    const OutputComparison outputs = compare_outputs(problem);
    const AttentionBenchmark speed = benchmark_attention(problem);
    add_pair("flash lab, " + sizes() + " causal", "step", "flash", speed.standard, speed.flash);
    add_difference(outputs);
  }

  void flex_lab() {
    const LabOptions& o = options_;
    const PassTensors x =
        random_tensors({o.batch, o.heads, o.seq_len, o.head_dim}, o.dtype, o.device);
    const Spec spec = {
        .mask = flex::bind(
            flex::parse_mask("causal & document"),
            {{"document", equal_documents(o.batch, o.seq_len, o.doc_span).to(o.device)}}),
        .score = flex::bind(flex::parse_score("alibi"),
                            {{"alibi_slopes", flex::alibi_slopes(o.heads).to(o.device)}}),
        .block_size = o.block_size};
    const OutputComparison outputs =
        compare_attention(attend_without_gradients(x, spec, "flex"),
                          attend_without_gradients(x, spec, "vanilla"), o.dtype);
    const std::string what = c10::str("flex lab, ", sizes(), " documents of ", o.doc_span,
                                      ", alibi, blocks of ", o.block_size);
    for (const char* pass : {"forward", "backward"}) {
      const auto contenders =
          contenders_of(pass, x, {{"vanilla", "vanilla", spec}, {"flex", "flex", spec}});
      const auto measured = measure(contenders, measure_options());
      add_pair(what, pass, "flex", measured[0], measured[1]);
      add_difference(outputs);
      add_operations(rows_[rows_.size() - 2], contenders[0], o.seq_len);
      add_operations(rows_.back(), contenders[1], o.seq_len);
    }
  }

  static at::Tensor attend_without_gradients(const PassTensors& x, const Spec& spec,
                                             const std::string& backend) {
    const at::NoGradGuard no_grad;
    return attend(x.q, x.k, x.v, spec, backend).output;
  }

  const LabOptions options_;
  const double gemm_;
  ordered_json rows_ = ordered_json::array();
};

std::string held_text(const ordered_json& row) {
  if (!row.contains("queries_by_keys_tensor")) return "-";
  return row.at("queries_by_keys_tensor").is_null() ? "none" : "held";
}

}  // namespace

LabOptions lab_options(bool quick) {
  if (!quick) return {};
  return {.batch = 1, .heads = 4, .seq_len = 512, .block_size = 64, .doc_span = 128};
}

ordered_json bench_lab(const LabOptions& options) {
  check(options);
  track_cpu_memory();
  return Lab(options).run();
}

std::string lab_markdown(const ordered_json& bench) {
  Table table = {{"lab", "backend", "pass", "allclose", "ms", "spread", "over vanilla", "peak MB",
                  "max difference", "mean difference", "operations", "tensor of all pairs"}};
  for (const ordered_json& row : bench.at("rows")) {
    const bool fused = row.contains("allclose");
    char largest[32] = "-", mean[32] = "-";
    if (fused) {
      std::snprintf(largest, sizeof largest, "%.1e", row.at("max_difference").get<double>());
      std::snprintf(mean, sizeof mean, "%.1e", row.at("mean_difference").get<double>());
    }
    table.push_back({row.at("case").get<std::string>(), row.at("backend").get<std::string>(),
                     row.at("pass").get<std::string>(),
                     !fused                           ? "-"
                     : row.at("allclose").get<bool>() ? "yes"
                                                      : "no",
                     fixed(row.at("median_ms").get<double>(), 2), spread_text(row),
                     fused ? ratio_text(row, "vanilla") : "-", megabytes(row), largest, mean,
                     row.contains("operations") ? row.at("operations").dump() : "-",
                     held_text(row)});
  }
  return markdown_table(table, 4) + "\nOne tensor of all pairs would take " +
         fixed(bench.at("pairs_bytes").get<double>() / 1e6, 1) + " MB; " +
         bench.at("gpu").get<std::string>() + ".\n";
}

std::string lab_chart(const ordered_json& bench) {
  std::vector<std::string> groups;
  std::vector<Bars> series = {{"vanilla", {}}, {"fused", {}}};
  for (const ordered_json& row : bench.at("rows")) {
    const bool fused = row.at("backend") != "vanilla";
    if (!fused) {
      const auto what = row.at("case").get<std::string>();
      groups.push_back(what.substr(0, what.find(',')) + ", " + row.at("pass").get<std::string>());
    }
    series[fused].values.emplace_back(row.at("median_ms").get<double>());
  }
  return bar_chart("The labs: plain tensors and fused", "lab and pass", "time, ms", groups, series);
}

}  // namespace nanoflex
