#pragma once

#include <torch/types.h>

#include <string>

namespace nanoflex {

/// Which pairs attend and how: see attention.h. A pair is visible when
/// position - left <= key <= position + right, position = row + S - T.
struct FlashCudaOptions {
  int64_t left = -1, right = -1;  ///< -1: unbounded
  double scale = 1;               ///< of q k^T; finite, not 0
  double dropout = 0;             ///< in [0, 1)
  uint64_t seed = 0;              ///< of dropout
  bool tf32 = false;              ///< multiply fp32 inputs in tf32
};

struct FlashCudaForward {
  at::Tensor output;     ///< [B, H, T, D] in q's dtype and, where rows stay 16-byte aligned, layout
  at::Tensor logsumexp;  ///< [B, H, T] fp32
  at::Tensor denominator = {};  ///< for the backward pass of fp32 inputs
};

struct FlashCudaBackward {
  at::Tensor dq, dk, dv;
};

/// "" when the fused kernels can run here on such a tensor, else why not: no CUDA in this build, a
/// GPU older than sm_80, another dtype, D > 256, no NVRTC.
std::string why_no_flash_cuda(const at::Tensor& q);

/// Attention by the kernels of this folder, compiled for this GPU at first use, on the current
/// stream. q: [B, H, T, D]; k, v: [B, H_kv, S, D]; bf16, fp16 or fp32, all alike, on one GPU. Any
/// strides: rows that are not contiguous or not 16-byte aligned (D odd, say) are copied first.
/// REQUIRES: shapes as attend() checks them. Throws std::invalid_argument for what cannot run, and
/// std::runtime_error when a kernel does not compile or start.
FlashCudaForward forward_cuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const FlashCudaOptions& options);

/// What a backward pass is given beside its inputs.
struct FlashCudaSaved {
  at::Tensor q, k, v;
  at::Tensor output, logsumexp, denominator;  ///< as forward_cuda returned them
  at::Tensor d_output, d_logsumexp;           ///< the latter may be undefined
};

/// The gradients, bit for bit the same in every run. REQUIRES: forward_cuda's inputs and options.
FlashCudaBackward backward_cuda(const FlashCudaSaved& saved, const FlashCudaOptions& options);

}  // namespace nanoflex
