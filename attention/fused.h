// What the fused tile kernels compute, whatever device they run on.
#pragma once

#include <ATen/Functions.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "attention/attention.h"
#include "attention/flex/block_mask.h"
#include "attention/flex/tile_code.h"

namespace nanoflex {

struct FusedOptions {
  static constexpr int64_t kUnbounded = int64_t{1} << 40;
  /// The keys that a query at position p among the keys sees: p - left .. p + right; kUnbounded: no
  /// bound on that side.
  int64_t left = kUnbounded, right = kUnbounded;
  double scale = 1;
  Dropout dropout = {};
  at::Tensor ranges = {};      ///< [B or 1, S, 2] int32: position p sees keys [begin, end) of these
  flex::Expression mask = {};  ///< what else is masked; undefined: nothing
  flex::Expression score = {};  ///< how scaled scores change; undefined: they do not
  std::shared_ptr<const flex::BlockMask> blocks = {};  ///< of `mask`; null when it is undefined
  bool need_logsumexp = false;  ///< to fp32's digits, also where weights are rounded to bf16
};

struct FusedResult {
  at::Tensor output;            ///< [B, H, T, D] like q
  at::Tensor logsumexp;         ///< [B, H, T] fp32, natural
  at::Tensor denominator = {};  ///< what a device's backward wants beside them, in O(T)
};

struct FusedGradients {
  at::Tensor dq, dk, dv;
  std::vector<at::Tensor> captured = {};  ///< of flex::differentiable_tensors(score), in its order
};

/// The spec as the kernels take it: what of its mask is a band, on a CPU ranges of keys, and blocks
/// of the rest. Throws
/// std::invalid_argument as flex::make_block_mask does.
FusedOptions fused_options(const at::Tensor& q, const at::Tensor& k, const Spec& spec);

/// What the CPU's tile code is made for.
flex::TileCodeOptions tile_code_options(const at::Tensor& q, const at::Tensor& k,
                                        const FusedOptions& options);

/// Attention by the fused kernels of q's device, differentiable once in q, k, v and in the score's
/// captured tensors. `backend` is named where a second derivative is refused. REQUIRES: shapes as
/// attend() checks them, and that the device's kernels take the dtype and the options.
Attention attend_fused(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const FusedOptions& options, const std::string& backend);

/// Why the kernels of q's device cannot run, whatever the mask; "" when they can.
std::string why_no_fused_kernels(const at::Tensor& q);

}  // namespace nanoflex
