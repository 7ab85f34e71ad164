#include "evidence/step_bench.h"

#include <algorithm>
#include <iostream>
#include <memory>
#include <optional>

#include "evidence/bars.h"
#include "evidence/deterministic_guard.h"
#include "evidence/measure.h"
#include "evidence/passes.h"
#include "evidence/python_peer.h"
#include "evidence/rows.h"
#include "trainer/budget.h"
#include "trainer/machine.h"
#include "trainer/markdown.h"
#include "trainer/memory.h"
#include "trainer/part_clock.h"
#include "trainer/recorded_step.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kDocument = 200;  // tokens of one, about

const std::vector<PythonRow> kPythonSteps = {{"eager", "eager"}, {"compiled", "compiled"}};

const std::string kLengths = "T ";  // begins the cases that differ in their length alone

data::Batch random_batch(int64_t B, int64_t T, int64_t vocabulary) {
  data::Batch batch{at::randint(vocabulary, {B, T}, at::kLong),
                    at::randint(vocabulary, {B, T}, at::kLong),
                    at::randint(kDocument, {B, T}, at::kLong).eq(0)};
  batch.document_starts.select(1, 0).fill_(true);
  return batch;
}

// A model in training, with one backend.
class Trainee {
 public:
  Trainee(Config config, at::Device device, at::ScalarType dtype)
      : before_(live_tensor_bytes(device)),
        config_(std::move(config)),
        device_(device),
        attention_(choose_attention(config_, device, dtype)),
        model_(gpt_options(config_, attention_), 42, device, dtype),
        optimizers_(model_, {}),
        step_({.device = device_, .rows = config_.batch_size}),
        recorded_(model_, attention_, optimizers_, {.step = step_, .launched = kLaunched}),
        batch_(random_batch(config_.batch_size, config_.sequence_len, config_.vocab_size)) {
    step();
    const int64_t own = live_tensor_bytes(device_) - before_;
    reset_peak_memory(device_);
    const int64_t others = live_tensor_bytes(device_) - own;
    step();  // launched: a recorded one allocates nothing
    peak_bytes_ = peak_tensor_bytes(device_) - others;
    for (int64_t i = 2; device_.is_cuda() && i < kLaunched + kCheckedReplays; ++i) step();
    if (const std::string news = recorded_.take_news(); !news.empty()) {
      std::cerr << config_.attention << ": " << news << '\n';
    }
  }

  void step() {
    recorded_.compute_gradients(batch_);
    recorded_.update(1);
  }

  // Of a step that is launched: a recorded one has no parts.
  std::map<std::string, double> parts() {
    PartClock clock(device_);
    compute_gradients(model_, attention_, optimizers_, batch_, step_);
    optimizers_.step(1);
    return clock.stop();
  }

  int64_t peak_bytes() const { return peak_bytes_; }
  Budget budget() const { return make_budget(model_, config_); }
  int64_t sequence_len() const { return config_.sequence_len; }

 private:
  static constexpr int64_t kLaunched = 3;

  const int64_t before_;
  const Config config_;
  const at::Device device_;
  const AttentionSetup attention_;
  const Gpt model_;
  Optimizers optimizers_;
  const StepOptions step_;
  RecordedStep recorded_;
  const data::Batch batch_;
  int64_t peak_bytes_ = 0;
};

Config baseline(const std::string& backend) {
  Config config;
  config.attention = backend;
  config.mask = "causal";  // one that all backends can run, and the peers do
  config.target_flops = std::nullopt;
  config.max_steps = 1;
  return config;
}

struct Case {
  std::string name;
  std::vector<Config> configs;  // one a backend
};

std::vector<Case> cases_of(const StepBenchOptions& options) {
  std::vector<Case> cases(1);
  cases[0].name = "baseline";
  for (const char* backend : {"vanilla", "sdpa", "flash", "flex"}) {
    cases[0].configs.push_back(baseline(backend));
  }
  if (options.quick) return cases;
  constexpr int64_t kTokens = 16384;
  for (const int64_t T : {256, 1024, 4096, 16384}) {
    Config config = baseline("flash");
    config.sequence_len = T;
    config.batch_size = kTokens / T;
    cases.push_back({kLengths + std::to_string(T) + ", 16384 tokens", {config}});
  }
  Config large = baseline("flash");
  large.n_layer = 12, large.n_embd = 768, large.n_head = large.n_kv_head = 12;
  large.sequence_len = 1024, large.batch_size = kTokens / 1024;
  cases.push_back({"12 layers of 768, T 1024, 16384 tokens", {large}});
  return cases;
}

class StepBench {
 public:
  explicit StepBench(const StepBenchOptions& options)
      : options_(options), dtype_(choose_dtype(options.dtype, options.device)) {
    use_deterministic_kernels(options.device);  // as ./train does
  }

  ordered_json run() {
    const std::vector<Case> cases = cases_of(options_);
    std::optional<PythonPeer> python;
    if (!options_.python.empty()) {
      show_progress(0, cases.size(), "PyTorch compiles");
      python.emplace(options_.python, "section_a_step", dtype_name(dtype_));
    }
    for (size_t i = 0; i < cases.size(); ++i) {
      show_progress(i + 1, cases.size(), cases[i].name);
      run_case(cases[i], i == 0 && python ? &*python : nullptr);
    }
    ordered_json record = {{"machine", describe_environment(options_.device)},
                           {"gemm_tflops", rows_[0].at("gemm_tflops")},
                           {"rows", rows_}};
    if (python) record["python"] = python->record();
    return record;
  }

 private:
  void run_case(const Case& one, PythonPeer* python) {
    std::vector<std::unique_ptr<Trainee>> trainees;
    std::vector<Contender> contenders = {gemm(dtype_, options_.device)};
    for (const Config& config : one.configs) {
      trainees.push_back(std::make_unique<Trainee>(config, options_.device, dtype_));
      contenders.push_back({config.attention, [&one = *trainees.back()] { one.step(); }});
    }
    for (const auto& [name, what] : kPythonSteps) {
      if (python && python->can_run(name)) contenders.push_back(python->contender(name));
    }
    const auto measured = measure(
        contenders, {.repeat = options_.repeat, .device = options_.device, .patience_ms = 60'000});
    for (size_t i = 0; i < trainees.size(); ++i) {
      add_row(one.name, one.configs[i].attention, measured[0], measured[i + 1], *trainees[i]);
      add_ratios(rows_.back(), std::span(measured).subspan(1, trainees.size()), i);
    }
    for (size_t i = 1 + trainees.size(); i < measured.size(); ++i) {
      python->add(measured[i].name, measured[i], measured[trainees.size()]);  // the last is flex
    }
  }

  void add_row(const std::string& name, const std::string& backend, const Measured& gemm,
               const Measured& step, Trainee& trainee) {
    const double seconds = step.median_ms / 1e3;
    const double yardstick = gemm_tflops(gemm, options_.device);
    const Budget budget = trainee.budget();
    const double tflops = static_cast<double>(budget.flops_per_step) / seconds / 1e12;
    ordered_json row = measured_row({name, backend, "step", options_.device, dtype_}, step);
    row["tokens_per_second"] = static_cast<double>(budget.tokens_per_step) / seconds;
    row["tflops_per_second"] = tflops;
    row["sequence_len"] = trainee.sequence_len();
    row["flops_per_token"] = budget.flops_per_token;
    row["attention_flops_per_token"] = budget.attention_flops_per_token;
    row["gemm_tflops"] = yardstick;
    row["share_of_gemm"] = tflops / yardstick;
    row["peak_bytes"] = trainee.peak_bytes();
    row["parts"] = trainee.parts();
    rows_.push_back(row);
  }

  const StepBenchOptions options_;
  const at::ScalarType dtype_;
  const DeterministicGuard kernels_;
  ordered_json rows_ = ordered_json::array();
};

std::string parts_of_steps(const ordered_json& rows) {
  Table table = {{"case", "backend"}};
  std::vector<std::string> names;
  for (const auto& [name, seconds] : rows[0].at("parts").items()) names.push_back(name);
  table[0].insert(table[0].end(), names.begin(), names.end());
  table[0].push_back("sum, ms");
  for (const ordered_json& row : rows) {
    std::vector<std::string>& line = table.emplace_back();
    line = {row.at("case"), row.at("backend")};
    double sum = 0;
    for (const std::string& name : names) sum += row.at("parts").at(name).get<double>();
    for (const std::string& name : names) {
      line.push_back(fixed(100 * row.at("parts").at(name).get<double>() / sum, 1) + " %");
    }
    line.push_back(fixed(1e3 * sum, 0));
  }
  return "\n" + markdown_table(table, 2);
}

// What a longer row costs a token, beside what its attention explains: all FLOPs that are counted,
// or those of the half that a causal mask leaves.
std::string cost_of_length(const ordered_json& rows) {
  Table table = {{"T, as many tokens a step", "backend", "time a token, of the first",
                  "FLOPs issued (causal)", "FLOPs counted"}};
  const ordered_json* first = nullptr;
  const auto cost = [](const ordered_json& row, double attention) {
    const double without =
        row.at("flops_per_token").get<double>() - row.at("attention_flops_per_token").get<double>();
    return without + attention * row.at("attention_flops_per_token").get<double>();
  };
  for (const ordered_json& row : rows) {
    if (!row.at("case").get<std::string>().starts_with(kLengths)) continue;
    if (first == nullptr) first = &row;
    table.push_back({row.at("sequence_len").dump(), row.at("backend").get<std::string>(),
                     fixed(first->at("tokens_per_second").get<double>() /
                               row.at("tokens_per_second").get<double>(),
                           2),
                     fixed(cost(row, 0.5) / cost(*first, 0.5), 2),
                     fixed(cost(row, 1) / cost(*first, 1), 2)});
  }
  if (table.size() == 1) return "";
  return "\n" + markdown_table(table, 2);
}

}  // namespace

ordered_json bench_step(const StepBenchOptions& options) { return StepBench(options).run(); }

std::string step_markdown(const ordered_json& bench) {
  Table table = {{"case", "backend", "ms", "spread", "tokens/s", "over sdpa", "GFLOP/s", "GEMM",
                  "share", "peak MB"}};
  const ordered_json& rows = bench.at("rows");
  for (const ordered_json& row : rows) {
    table.push_back({row.at("case"), row.at("backend"), fixed(row.at("median_ms").get<double>(), 0),
                     spread_text(row), fixed(row.at("tokens_per_second").get<double>(), 0),
                     ratio_text(row, "sdpa"),
                     fixed(1e3 * row.at("tflops_per_second").get<double>(), 1),
                     fixed(1e3 * row.at("gemm_tflops").get<double>(), 0),
                     fixed(row.at("share_of_gemm").get<double>(), 2),
                     fixed(row.at("peak_bytes").get<double>() / 1e6, 0)});
  }
  return markdown_table(table, 2) + cost_of_length(rows) + parts_of_steps(rows) +
         (bench.contains("python") ? python_markdown(bench.at("python"), "flex", kPythonSteps)
                                   : "");
}

std::string step_chart(const ordered_json& bench) {
  GroupedBars bars;
  for (const ordered_json& row : bench.at("rows")) {
    bars.add(row.at("case"), row.at("backend"), row.at("tokens_per_second").get<double>());
  }
  return bar_chart("Training steps", "model and batch", "throughput, tokens/s", bars.groups,
                   bars.series);
}

}  // namespace nanoflex
