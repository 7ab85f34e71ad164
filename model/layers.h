#pragma once

#include <ATen/Functions.h>

#include "model/cast_weight.h"

namespace nanoflex {

/// Root-mean-square normalisation over the last dimension, without weights (Zhang and Sennrich
/// 2019, eq. 4). epsilon is the machine epsilon of the dtype that sums are in, fp32's for bf16. x:
/// any shape; result: same shape and dtype. Differentiable once where it is fused, fp32 and bf16 on
/// a CPU: a second derivative throws std::invalid_argument.
at::Tensor rms_norm(const at::Tensor& x);

/// x [..., in] times weight [out, in], transposed; the weight is used in x's dtype.
at::Tensor project(const at::Tensor& x, const CastWeight& weight);

/// The MLP's non-linearity: max(x, 0)^2 (So et al. 2021, "Primer"); NaN stays NaN. Differentiable
/// as rms_norm is.
at::Tensor relu_squared(const at::Tensor& x);

/// Their definitions in plain tensors.
at::Tensor rms_norm_reference(const at::Tensor& x);
at::Tensor relu_squared_reference(const at::Tensor& x);

/// cos and sin by which positions turn, [T, D / 2] fp32, contiguous; undefined: they do not.
struct Rotation {
  at::Tensor cos = {}, sin = {};
};

/// Rotary position embedding (Su et al. 2021) with base 10000. The two halves of a head turn as
/// pairs: y1 = x1 cos + x2 sin, y2 = -x1 sin + x2 cos; cos and sin are rounded to bf16.
class Rotary {
 public:
  /// positions 0 .. length - 1 for heads of `head_dim` values (even).
  Rotary(int64_t length, int64_t head_dim, at::Device device);

  /// x: [B, T, H, D] at positions offset .. offset + T - 1; result: same shape and dtype.
  /// REQUIRES: offset + T <= length.
  at::Tensor rotate(const at::Tensor& x, int64_t offset) const;

  /// Of positions offset .. offset + T - 1.
  Rotation rotation(int64_t offset, int64_t T) const;

  /// rms_norm(rotate(x, offset)) in one pass where it is fused.
  at::Tensor rotate_and_norm(const at::Tensor& x, int64_t offset) const;

 private:
  Rotation table_;  // of all positions, bf16 values held in fp32
};

}  // namespace nanoflex
