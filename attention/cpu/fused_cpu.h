#pragma once

#include "attention/cpu/kernels.h"
#include "attention/fused.h"

namespace nanoflex::cpu {

/// Softmax attention of CPU tensors by tiles: memory besides the results is O(T). fp32 and bf16; q:
/// [B, H, T, D], k, v: [B, H_kv, S, D], any strides.
FusedResult forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const FusedOptions& options, const KernelSet& kernels);

/// Gradients from what forward() returned, those of its output (d_output) and of its logsumexp
/// (d_logsumexp, may be undefined).
FusedGradients backward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const FusedResult& result, const at::Tensor& d_output,
                        const at::Tensor& d_logsumexp, const FusedOptions& options,
                        const KernelSet& kernels);

}  // namespace nanoflex::cpu
