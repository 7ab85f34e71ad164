#pragma once

#include <ATen/Functions.h>

#include <nlohmann/json.hpp>
#include <string>

namespace nanoflex {

struct FlexBenchOptions {
  bool quick = false;  ///< batches of at most 2
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  int64_t repeat = 5;
  std::string python = {};  ///< an interpreter with torch, to be timed beside; "": none
};

/// Times `flex` against `flash` (causal, soft cap, ALiBi), documents against their share of causal
/// attention, and fused against whole tensors, forward and backward; and the making of block masks.
/// Progress goes to stderr. Returns {machine, gemm_tflops, rows}: a row has case, backend, pass,
/// device, dtype, median_ms, spread, share_of_gemm, ratios and peak_bytes, and, where it is held to
/// a target, target {value, range, value_by_pairs, wanted, holds, of}: times as fast as `of`, when
/// that is scaled to its share of the blocks that are visited, or of the pairs. Throws
/// std::runtime_error when `python` fails.
nlohmann::ordered_json bench_flex(const FlexBenchOptions& options);

/// All rows as a table, with what was measured of their targets beside what is wanted.
std::string flex_markdown(const nlohmann::ordered_json& bench);

/// Bars of what is held against flash, as SVG: how many times as fast.
std::string flex_chart(const nlohmann::ordered_json& bench);

}  // namespace nanoflex
