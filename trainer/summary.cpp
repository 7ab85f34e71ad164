#include "trainer/summary.h"

#include <iomanip>
#include <sstream>

#include "trainer/machine.h"
#include "trainer/progress.h"
#include "trainer/run_summary.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

ordered_json results(const Measurement& m, const Budget& budget, at::Device device) {
  std::optional<double> tokens_per_second, tflops_per_second;
  if (m.measured_steps > 0) {
    const auto tokens = static_cast<double>(m.measured_steps * budget.tokens_per_step);
    tokens_per_second = tokens / m.measured_seconds;
    tflops_per_second = *tokens_per_second * static_cast<double>(budget.flops_per_token) / 1e12;
  }
  std::optional<double> validation_loss, bits_per_byte;
  if (m.validation) {
    validation_loss = m.validation->loss;
    bits_per_byte = m.validation->bits_per_byte;
  }
  const Peaks peaks = m.peaks(device);
  ordered_json result = {{"tokens_per_second", or_null(tokens_per_second)},
                         {"tflops_per_second", or_null(tflops_per_second)},
                         {"peak_memory_bytes", peaks.tensor_bytes},
                         {"peak_rss_bytes", peaks.rss_bytes},
                         {"first_loss", or_null(m.first_loss)},
                         {"final_loss", or_null(m.final_loss)},
                         {"validation_loss", or_null(validation_loss)},
                         {"bits_per_byte", or_null(bits_per_byte)}};
  if (!device.is_cpu()) result["peak_reserved_bytes"] = peaks.reserved_bytes;
  return result;
}

// Keys back that each layer sees; null: no window.
ordered_json windows(const AttentionSetup& attention) {
  ordered_json list = ordered_json::array();
  for (const auto& window : attention.windows) list.emplace_back(or_null(window));
  return list;
}

ordered_json learned(const AttentionSetup& attention) {
  ordered_json list = ordered_json::object();
  for (const ScoreTensor& tensor : attention.learned) {
    list[tensor.name] = tensor.initial.sizes().vec();
  }
  return list;
}

}  // namespace

int64_t parameter_count(const Gpt& model) {
  int64_t count = 0;
  for (const Parameter& parameter : model.parameters()) count += parameter.value.numel();
  return count;
}

ordered_json begin_summary(const std::string& run_id, const std::vector<std::string>& command,
                           const Config& config, at::Device device, const Budget& budget) {
  return {{"schema", kSummarySchema},
          {"run_id", run_id},
          {"status", "running"},
          {"command", command},
          {"parent", nullptr},
          {"resumed", ordered_json::array()},
          {"git", describe_git()},
          {"environment", describe_environment(device)},
          {"config", to_json(config)},
          {"budget",
           {{"flops_per_token", budget.flops_per_token},
            {"tokens_per_step", budget.tokens_per_step},
            {"flops_per_step", budget.flops_per_step},
            {"steps", or_null(budget.steps)},
            {"warmup_steps", config.warmup_steps},
            {"measured_steps", 0}}}};
}

void end_summary(ordered_json& summary, const std::string& status, const Measurement& measurement,
                 const Budget& budget, at::Device device, const AttentionSetup& attention) {
  summary["status"] = status;
  if (status != "running") {  // until then, what is planned
    summary["budget"]["steps"] = measurement.steps;
    summary["budget"]["tokens"] = measurement.tokens;
    summary["budget"]["flops"] = measurement.flops;
  }
  summary["budget"]["unmeasured_steps"] = measurement.unmeasured_steps;
  summary["budget"]["measured_steps"] = measurement.measured_steps;
  summary["attention"] = {
      {"backend", attention.backend},
      {"mask", flex::to_text(attention.mask)},
      {"score", attention.score.defined() ? ordered_json(flex::to_text(attention.score))
                                          : ordered_json(nullptr)},
      {"windows", windows(attention)},
      {"learned_tensors", learned(attention)},
      {"fused", attention.fused},
      {"sparsity", nullptr},
      {"flops_per_token", budget.attention_flops_per_token},
      {"issued_flops_per_token", nullptr}};
  if (measurement.mask) {
    summary["attention"]["sparsity"] = measurement.mask->sparsity;
    summary["attention"]["issued_flops_per_token"] =
        measurement.mask->visited * budget.attention_flops_per_token;
  }
  summary["results"] = results(measurement, budget, device);
}

std::vector<std::string> headline(const ordered_json& summary) {
  const ordered_json& r = summary["results"];
  std::ostringstream speed, loss;
  if (r["tokens_per_second"].is_null()) {
    speed << "no step was timed: all were warm-up steps";
  } else {
    speed << short_number(r["tokens_per_second"].get<double>()) << "tokens/s, "
          << short_number(r["tflops_per_second"].get<double>() * 1e12) << "FLOP/s over "
          << summary["budget"]["measured_steps"] << " steps";
  }
  speed << "; peak " << short_number(r["peak_memory_bytes"].get<double>()) << "B of tensors, "
        << short_number(r["peak_rss_bytes"].get<double>()) << "B resident";
  loss << std::fixed << std::setprecision(4) << "loss " << r["first_loss"].get<double>() << " -> "
       << r["final_loss"].get<double>();
  if (!r["validation_loss"].is_null()) {
    loss << ", validation " << r["validation_loss"].get<double>();
  }
  if (!r["bits_per_byte"].is_null())
    loss << ", " << r["bits_per_byte"].get<double>() << " bits/byte";
  return {speed.str(), loss.str()};
}

}  // namespace nanoflex
