#include "evidence/forward_bench.h"

#include <ATen/core/grad_mode.h>

#include "attention/registry.h"
#include "evidence/bars.h"
#include "evidence/passes.h"
#include "evidence/published.h"
#include "evidence/rows.h"
#include "trainer/budget.h"
#include "trainer/machine.h"
#include "trainer/markdown.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

std::string name_of(const ForwardOptions& options) {
  const GptOptions& o = options.model;
  return c10::str("B", options.batch, " T", o.sequence_len, ", ", o.n_layer, " layers of width ",
                  o.n_embd, ", ", o.n_head, " heads, ", o.n_kv_head, " kv heads");
}

int64_t weight_bytes(const Gpt& model) {
  int64_t bytes = 0;
  for (const Parameter& parameter : model.parameters()) {
    bytes += static_cast<int64_t>(parameter.value.nbytes());
  }
  return bytes;
}

// Why the backend cannot run the model's attention; "" when it can.
std::string why_not(const Backend& backend, const ForwardOptions& options) {
  const GptOptions& o = options.model;
  const auto kind = at::TensorOptions().dtype(options.dtype).device(options.device);
  const auto heads = [&](int64_t count) {
    return at::zeros({1, 1, 1, 1}, kind).expand({1, count, o.sequence_len, o.head_dim()});
  };
  const at::Tensor k = heads(o.n_kv_head);
  return backend.why_unsupported(heads(o.n_head), k, k, {.mask = flex::causal()});
}

}  // namespace

ForwardOptions forward_options(bool quick) {
  ForwardOptions options;
  if (quick) options.model.n_layer = 2, options.batch = 2;
  return options;
}

ordered_json bench_forward(const ForwardOptions& options) {
  const Gpt model(options.model, 42, options.device, options.dtype);
  const at::Tensor tokens =
      at::randint(options.model.vocab_size, {options.batch, options.model.sequence_len}, at::kLong)
          .to(options.device);
  ordered_json rows = ordered_json::array();
  std::vector<Contender> contenders = {gemm(options.dtype, options.device)};
  for (const Backend& backend : backends()) {
    if (backend.name != "sdpa" && !backend.fused) continue;
    if (const std::string reason = why_not(backend, options); !reason.empty()) {
      rows.push_back(skipped_row(
          {name_of(options), backend.name, "forward", options.device, options.dtype}, reason));
      continue;
    }
    const AttentionChoice choice = {.backend = backend.name, .spec = {.mask = flex::causal()}};
    contenders.push_back({backend.name, [&model, tokens, choice] {
                            const at::NoGradGuard no_grad;
                            model.logits(tokens, choice);
                          }});
  }
  show_progress(1, 1, name_of(options));
  const auto measured = measure(
      contenders, {.repeat = options.repeat, .device = options.device, .patience_ms = 10'000});
  const double flops = static_cast<double>(tokens.numel() * flops_per_token(model)) / 3;
  const double yardstick = gemm_tflops(measured[0], options.device);
  for (size_t i = 1; i < contenders.size(); ++i) {
    ordered_json row = measured_row(
        {name_of(options), contenders[i].name, "forward", options.device, options.dtype},
        measured[i]);
    row["share_of_gemm"] = flops / measured[i].median_ms / 1e9 / yardstick;
    add_ratios(row, std::span(measured).subspan(1), i - 1);
    row["peak_bytes"] = measured[i].peak_bytes + weight_bytes(model);
    row["tokens_per_second"] = static_cast<double>(tokens.numel()) / measured[i].median_ms * 1e3;
    rows.push_back(row);
  }
  return {{"machine", describe_environment(options.device)},
          {"gemm_tflops", yardstick},
          {"rows", rows},
          {"published", published_json("forward")}};
}

std::string forward_markdown(const ordered_json& bench) {
  Table table = {{"forward pass", "backend", "dtype", "ms", "spread", "tokens/s", "of GEMM",
                  "over sdpa", "peak MB"}};
  for (const ordered_json& row : bench.at("rows")) {
    if (row.contains("skipped")) continue;
    table.push_back(
        {row.at("case").get<std::string>(), row.at("backend").get<std::string>(),
         row.at("dtype").get<std::string>(), fixed(row.at("median_ms").get<double>(), 2),
         spread_text(row), fixed(row.at("tokens_per_second").get<double>(), 0),
         fixed(row.at("share_of_gemm").get<double>(), 2), ratio_text(row, "sdpa"), megabytes(row)});
  }
  return markdown_table(table, 3) + skipped_markdown(bench.at("rows")) +
         published_markdown("forward");
}

std::string forward_chart(const ordered_json& bench) {
  std::vector<std::string> backends;
  Bars bars{"measured", {}};
  for (const ordered_json& row : bench.at("rows")) {
    if (row.contains("skipped")) continue;
    backends.push_back(row.at("backend").get<std::string>());
    bars.values.emplace_back(row.at("median_ms").get<double>());
  }
  return bar_chart("A GPT's forward pass", "attention backend", "time, ms", backends, {bars});
}

}  // namespace nanoflex
