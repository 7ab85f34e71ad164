#pragma once

#include <ATen/Functions.h>

#include <cstdint>
#include <optional>
#include <string>

#include "evidence/measure.h"

namespace nanoflex {

struct FlashAttentionOptions {
  double dropout = 0;  ///< probability, in [0, 1); in training mode only
  bool causal = true;
  /// Of the dropout. Not given: one of its own for each layer, by how many were made before it.
  std::optional<uint64_t> seed = {};
};

/// Fused attention on [B, T, H, D], as a layer with a training mode. The layout is read as it lies.
class FlashAttention {
 public:
  explicit FlashAttention(const FlashAttentionOptions& options = {});

  void train(bool on = true) { training_ = on; }
  void eval() { train(false); }

  /// q: [B, T, H, D]; k, v: [B, S, H_kv, D]; returns [B, T, H, D]. In training mode each call drops
  /// other weights, and so does each layer, but for those that were given one seed; the same ones
  /// in every run that makes and calls its layers in the same order. Throws std::invalid_argument
  /// as attend() does.
  at::Tensor operator()(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

 private:
  FlashAttentionOptions options_;
  uint64_t seed_;
  bool training_ = true;
  uint64_t calls_ = 0;
};

struct Availability {
  bool available;
  std::string reason;  ///< in words, when not
};

/// Whether the fused kernels run on a device such as "cpu" or "cuda:0".
Availability flash_available(const std::string& device);

struct AttentionProblem {
  int64_t B = 2, T = 1024, H = 8, D = 64;
  bool causal = true;
  at::ScalarType dtype = at::kFloat;
  std::string device = "cpu";
  int64_t repeat = 5;
};

/// Forward and backward of plain attention (backend vanilla) and of flash, taking turns.
struct AttentionBenchmark {
  double standard_ms, flash_ms, speed_up;
  int64_t standard_bytes, flash_bytes;  ///< peak of tensors, beyond the inputs
  Measured standard, flash;             ///< the same with each repeat
};
AttentionBenchmark benchmark_attention(const AttentionProblem& problem);

struct OutputComparison {
  double max_difference, mean_difference;
  bool allclose;  ///< within 1e-5, or 2e-2 in 16 bits, absolute and relative
};
OutputComparison compare_outputs(const AttentionProblem& problem);
/// Of any two outputs that were computed in a dtype.
OutputComparison compare_attention(const at::Tensor& found, const at::Tensor& standard,
                                   at::ScalarType dtype);

}  // namespace nanoflex
