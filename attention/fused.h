// What the fused tile kernels compute, whatever device they run on.
#pragma once

#include <torch/types.h>

#include <cstdint>

#include "attention/dropout.h"

namespace nanoflex {

/// The keys that a query at position p among the keys sees: p - left .. p + right; kUnbounded: no
/// bound on that side.
struct FusedOptions {
  static constexpr int64_t kUnbounded = int64_t{1} << 40;
  int64_t left = kUnbounded, right = kUnbounded;
  double scale = 1;
  Dropout dropout = {};
};

struct FusedResult {
  at::Tensor output;            ///< [B, H, T, D] like q
  at::Tensor logsumexp;         ///< [B, H, T] fp32, natural
  at::Tensor denominator = {};  ///< what a device's backward wants beside them, in O(T)
};

struct FusedGradients {
  at::Tensor dq, dk, dv;
};

}  // namespace nanoflex
