#pragma once

#include <torch/types.h>

namespace nanoflex {

/// Root-mean-square normalisation over the last dimension, without weights (Zhang and Sennrich
/// 2019, eq. 4). epsilon is the machine epsilon of x's dtype. x: any shape; result: same shape and
/// dtype.
at::Tensor rms_norm(const at::Tensor& x);

/// x [..., in] times weight [out, in], transposed; the weight is used in x's dtype.
at::Tensor project(const at::Tensor& x, const at::Tensor& weight);

/// The MLP's non-linearity: max(x, 0)^2 (So et al. 2021, "Primer").
at::Tensor relu_squared(const at::Tensor& x);

/// Rotary position embedding (Su et al. 2021) with base 10000. The two halves of a head turn as
/// pairs: y1 = x1 cos + x2 sin, y2 = -x1 sin + x2 cos; cos and sin are rounded to bf16.
class Rotary {
 public:
  /// positions 0 .. length - 1 for heads of `head_dim` values (even).
  Rotary(int64_t length, int64_t head_dim, at::Device device);

  /// x: [B, T, H, D] at positions offset .. offset + T - 1; result: same shape and dtype.
  /// REQUIRES: offset + T <= length.
  at::Tensor rotate(const at::Tensor& x, int64_t offset) const;

 private:
  at::Tensor cos_, sin_;  // [1, length, 1, D / 2], bf16 values held in fp32
};

}  // namespace nanoflex
