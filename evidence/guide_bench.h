#pragma once

#include <ATen/Functions.h>

#include <nlohmann/json.hpp>
#include <string>

namespace nanoflex {

struct GuideOptions {
  int64_t batch = 32, length = 1950, heads = 6, width = 384;
  int64_t window = 256;    ///< keys back
  int64_t block = 64;      ///< of the block-sparse mask
  int64_t document = 256;  ///< tokens of one
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  int64_t repeat = 5;
};

/// The published guide's sizes; `quick`: a batch of 2 and 510 tokens, with smaller masks.
GuideOptions guide_options(bool quick);

/// Times forward and backward of attention under six masks (causal, full, sliding window,
/// block-sparse, document, custom), with vanilla, flash and flex, taking turns. Returns {machine,
/// gemm_tflops, rows, published}: a row has what every bench's has, pass "step", and mask and
/// visible_share (of pairs, which share_of_gemm counts), or `skipped` with the reason. Progress
/// goes to stderr.
nlohmann::ordered_json bench_guide(const GuideOptions& options);

std::string guide_markdown(const nlohmann::ordered_json& bench);
std::string guide_chart(const nlohmann::ordered_json& bench);

}  // namespace nanoflex
