#pragma once

#include <ATen/Functions.h>

#include <nlohmann/json.hpp>
#include <string>

namespace nanoflex {

struct StepBenchOptions {
  bool quick = false;  ///< the baseline's model only
  std::string dtype = "auto";
  at::Device device = at::kCPU;
  int64_t repeat = 5;
  std::string python = {};  ///< an interpreter with torch, to be timed beside; "": none
};

/// Times whole training steps (forward, backward, update) of the baseline's model with each
/// backend, taking turns, on random tokens in documents; then, unless `quick`, the same tokens in
/// longer rows, and a model of 12 layers and width 768. Progress goes to stderr. Returns {machine,
/// gemm_tflops, rows}: a row has case, backend, pass ("step"), device, dtype, median_ms, spread,
/// tokens_per_second, tflops_per_second, sequence_len, flops_per_token,
/// attention_flops_per_token (of them), gemm_tflops (timed in turn with the steps), share_of_gemm,
/// peak_bytes, parts {seconds by name} and ratios. Throws std::runtime_error when `python` fails.
nlohmann::ordered_json bench_step(const StepBenchOptions& options);

/// The rows as tables: speeds, what length costs beside what attention explains, and where the time
/// went.
std::string step_markdown(const nlohmann::ordered_json& bench);

/// Bars of throughput, as SVG.
std::string step_chart(const nlohmann::ordered_json& bench);

}  // namespace nanoflex
