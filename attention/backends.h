#pragma once

#include "attention/registry.h"

namespace nanoflex {

Backend vanilla_backend();  ///< plain tensors: any mask, any score; every derivative
Backend sdpa_backend();     ///< ATen's scaled_dot_product_attention: causal and full only
Backend tiled_backend();    ///< FlashAttention-2 in tiles of 16 x 16, as a readable reference
Backend flash_backend();    ///< FlashAttention-2 in fused kernels: masks that are bands
Backend flex_backend();     ///< any mask and score in fused kernels

/// The plain computation: scores as a [B, H, T, S] tensor.
Attention attend_plainly(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const Spec& spec);

/// The scale that the spec asks for: 1 / sqrt(D) unless it says otherwise.
double scale_of(const at::Tensor& q, const Spec& spec);

}  // namespace nanoflex
