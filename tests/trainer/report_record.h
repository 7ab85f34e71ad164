// Records of runs that never were, for the pages made from them.
#pragma once

#include <cmath>
#include <string>

#include "trainer/png.h"
#include "trainer/report/record.h"

namespace nanoflex {

/// Ends a script, a comment, an attribute and a JSON string where it is not escaped.
inline const std::string kHostile =
    "</script><script>document.body.textContent='broken'</script><!-- \"'>\xE2\x80\xA8&amp;";

inline MetricsLine metrics_line(double step) {
  return {.step = step,
          .tokens = step * 2048,
          .step_seconds = 0.9,
          .loss = 10.8 / std::sqrt(step) + 0.1,
          .learning_rate = 6e-4,
          .grad_norm = 1.0 + 1.0 / step,
          .tokens_per_second = 2174.3 + step,
          .tflops_per_second = 0.098,
          .memory_bytes = 312000000 + step};
}

inline FullRecord record_of(int64_t steps, const std::string& text = "run") {
  FullRecord record;
  record.summary = {
      {"schema", 1},
      {"run_id", text},
      {"status", "finished"},
      {"command", {"./train", "--mask", text}},
      {"parameters", 13700000},
      {"config", {{"data", {{"data", text}}}, {"attention", {{"mask", text}}}}},
      {"environment", {{"cpu", text}, {"device", "cpu"}}},
      {"git", {{"commit", "0123456789"}}},
      {"budget",
       {{"steps", steps},
        {"tokens_per_step", 2048},
        {"flops_per_step", 92006252544},
        {"flops_per_token", 44924928},
        {"warmup_steps", 5},
        {"measured_steps", steps - 5}}},
      {"attention", {{"backend", "flex"}, {"mask", text}, {"score", text}, {"sparsity", 0.5}}},
      {"results",
       {{"tokens_per_second", 2174.25},
        {"tflops_per_second", 0.0977},
        {"peak_memory_bytes", 312000000},
        {"peak_rss_bytes", 547000000},
        {"first_loss", 10.8258},
        {"final_loss", 9.768},
        {"validation_loss", 9.7328},
        {"bits_per_byte", 4.3153}}},
      {"samples",
       {{"tokens", 48},
        {"temperature", 0.8},
        {"top_k", 50},
        {"none_because", nullptr},
        {"texts", {{{"seed", 1}, {"text", text}}}}}}};
  for (int64_t step = 1; step <= steps; ++step)
    record.metrics.push_back(metrics_line(double(step)));
  if (steps > 0) record.metrics.back().validation_loss = 9.7328;
  record.masks = {{text, png({.width = 1, .height = 1, .palette = {{0, 0, 0}}, .pixels = {0}})}};
  return record;
}

}  // namespace nanoflex
