#pragma once

#include <ATen/Functions.h>

#include <string>

#include "attention/fused.h"

namespace nanoflex {

/// "" when the fused kernels can run here on such a tensor, else why not: no CUDA in this build, a
/// GPU older than sm_80, another dtype, D > 256, no NVRTC.
std::string why_no_flash_cuda(const at::Tensor& q);

/// Attention by the kernels of this folder, compiled for this GPU at first use, on the current
/// stream. q: [B, H, T, D]; k, v: [B, H_kv, S, D]; bf16, fp16 or fp32, all alike, on one GPU. Any
/// strides: rows that are not contiguous or not 16-byte aligned (D odd, say) are copied first. The
/// output is in q's layout where its rows stay 16-byte aligned.
/// REQUIRES: shapes as attend() checks them; a mask and score that tile code and CUDA source can
/// express (flex/tile_code.h, flex/cuda_source.h). Throws std::invalid_argument for what cannot
/// run, and std::runtime_error when a kernel does not compile or start.
FusedResult forward_cuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const FusedOptions& options);

/// Gradients from what forward_cuda() returned, those of its output (d_output) and of its logsumexp
/// (d_logsumexp, may be undefined), bit for bit the same in every run. REQUIRES: forward_cuda's
/// inputs and options.
FusedGradients backward_cuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const FusedResult& result, const at::Tensor& d_output,
                             const at::Tensor& d_logsumexp, const FusedOptions& options);

}  // namespace nanoflex
