#pragma once

#include <ATen/Functions.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace nanoflex {

struct SweepOptions {
  bool quick = false;       ///< lower patience with what is slow
  int64_t longest = 65536;  ///< sequence of the one head; a power of two
  std::vector<at::ScalarType> dtypes = {at::kBFloat16, at::kFloat};
  at::Device device = at::kCPU;
  int64_t repeat = 5;
};

/// Times attention by `vanilla`, `sdpa` and `flash`, forward and backward: first four shapes of
/// models and a sliding window, then T 128 ... `longest` by D 16 ... 128 for one causal head.
/// Progress goes to stderr. Returns {machine, gemm_tflops, rows}; a row has case, B, H, T, D,
/// backend, pass (forward, backward, step), device, dtype, median_ms, spread, share_of_gemm (of
/// LibTorch's rate in the same dtype), ratios {peer: times faster} and peak_bytes, or `skipped`
/// with the reason.
nlohmann::ordered_json sweep_attention(const SweepOptions& options);

/// One line a case, dtype and pass.
std::string sweep_csv(const nlohmann::ordered_json& sweep);
std::string sweep_markdown(const nlohmann::ordered_json& sweep);
/// By file name: time, speed-up over vanilla and memory against T for one head of size 64, forward
/// and backward together.
std::map<std::string, std::string> sweep_charts(const nlohmann::ordered_json& sweep,
                                                const std::string& dtype);

}  // namespace nanoflex
