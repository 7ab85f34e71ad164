#pragma once

#include <ATen/Functions.h>

#include "model/cpu/kernels.h"
#include "model/layers.h"

namespace nanoflex {

struct NormResult {
  at::Tensor y;      ///< like x
  at::Tensor scale;  ///< [rows] fp32
};

/// rms_norm of layers.h in one pass, of rotated rows where there is a rotation. x: [.., C], or
/// [B, T, H, D] where rotated; fp32 or bf16, contiguous.
NormResult norm_cpu(const at::Tensor& x, const Rotation& rotation,
                    const cpu::ModelKernelSet& kernels);
/// dx from dy, contiguous, and what norm_cpu() returned.
at::Tensor norm_backward_cpu(const NormResult& result, const at::Tensor& dy,
                             const Rotation& rotation, const cpu::ModelKernelSet& kernels);

/// max(x, 0)^2, and dx from dy; contiguous.
at::Tensor relu_squared_cpu(const at::Tensor& x, const cpu::ModelKernelSet& kernels);
at::Tensor relu_squared_backward_cpu(const at::Tensor& x, const at::Tensor& dy,
                                     const cpu::ModelKernelSet& kernels);

/// y = cap tanh(x / cap), fp32, like x. x: [rows, C] fp32 or bf16; rows of either may lie apart.
void soft_cap_cpu(const at::Tensor& x, double cap, const at::Tensor& y,
                  const cpu::ModelKernelSet& kernels);

}  // namespace nanoflex
