#include "trainer/measurement.h"

#include <algorithm>
#include <cmath>

#include "trainer/memory.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::json;

std::optional<double> saved_number(const json& value) {
  return value.is_null() ? std::nullopt : std::optional(value.get<double>());
}

}  // namespace

void Measurement::add(const StepMetrics& metrics, const Budget& budget, int64_t warmup_steps) {
  steps = metrics.step;
  tokens = metrics.tokens;
  flops += static_cast<double>(budget.flops_per_step);
  if (!first_loss) first_loss = metrics.loss;
  final_loss = metrics.loss;
  if (metrics.step <= unmeasured_steps + warmup_steps) return;
  ++measured_steps;
  measured_seconds += metrics.step_seconds;
}

void Measurement::begin_anew() {
  unmeasured_steps = steps;
  measured_steps = 0;
  measured_seconds = 0;
  mask = std::nullopt;
  earlier = {};
}

Peaks Measurement::peaks(at::Device device) const {
  return {.tensor_bytes = std::max(earlier.tensor_bytes, peak_tensor_bytes(device)),
          .rss_bytes = std::max(earlier.rss_bytes, peak_rss_bytes()),
          .reserved_bytes = std::max(earlier.reserved_bytes, peak_reserved_bytes(device))};
}

json to_json(const Measurement& m, at::Device device) {
  const Peaks peaks = m.peaks(device);
  json saved = {{"steps", m.steps},
                {"tokens", m.tokens},
                {"flops", m.flops},
                {"unmeasured_steps", m.unmeasured_steps},
                {"measured_steps", m.measured_steps},
                {"measured_seconds", m.measured_seconds},
                {"first_loss", or_null(m.first_loss)},
                {"final_loss", or_null(m.final_loss)},
                {"validation", nullptr},
                {"mask", nullptr},
                {"peak_tensor_bytes", peaks.tensor_bytes},
                {"peak_rss_bytes", peaks.rss_bytes},
                {"peak_reserved_bytes", peaks.reserved_bytes}};
  if (m.validation) {
    saved["validation"] = {{"loss", m.validation->loss},
                           {"bits_per_byte", or_null(m.validation->bits_per_byte)},
                           {"tokens", m.validation->tokens}};
  }
  if (m.mask) saved["mask"] = {{"sparsity", m.mask->sparsity}, {"visited", m.mask->visited}};
  return saved;
}

Measurement measurement_from(const json& saved) {
  Measurement m;
  saved.at("steps").get_to(m.steps);
  saved.at("tokens").get_to(m.tokens);
  saved.at("flops").get_to(m.flops);
  saved.at("unmeasured_steps").get_to(m.unmeasured_steps);
  saved.at("measured_steps").get_to(m.measured_steps);
  saved.at("measured_seconds").get_to(m.measured_seconds);
  m.first_loss = saved_number(saved.at("first_loss"));
  m.final_loss = saved_number(saved.at("final_loss"));
  if (const json& validation = saved.at("validation"); !validation.is_null()) {
    m.validation = Validation{.loss = saved_number(validation.at("loss")).value_or(std::nan("")),
                              .bits_per_byte = saved_number(validation.at("bits_per_byte")),
                              .tokens = validation.at("tokens").get<int64_t>()};
  }
  if (const json& mask = saved.at("mask"); !mask.is_null()) {
    m.mask = MaskShare{.sparsity = mask.at("sparsity").get<double>(),
                       .visited = mask.at("visited").get<double>()};
  }
  saved.at("peak_tensor_bytes").get_to(m.earlier.tensor_bytes);
  saved.at("peak_rss_bytes").get_to(m.earlier.rss_bytes);
  saved.at("peak_reserved_bytes").get_to(m.earlier.reserved_bytes);
  return m;
}

}  // namespace nanoflex
