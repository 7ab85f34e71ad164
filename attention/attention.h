#pragma once

#include <ATen/Functions.h>

#include <optional>
#include <string>

#include "attention/dropout.h"
#include "attention/flex/expression.h"
#include "attention/flex/masks.h"

namespace nanoflex {

inline constexpr char kAttentionScope[] = "nanoflex::attention";  ///< of at::RecordFunction

/// What attention computes, beside the tensors.
struct Spec {
  flex::Expression mask =
      flex::full();                  ///< which pairs may attend: a truth value over (b, h, q, kv)
  flex::Expression score = {};       ///< how a scaled score changes; undefined: unchanged
  std::optional<double> scale = {};  ///< of q k^T; default 1 / sqrt(D)
  Dropout dropout = {};              ///< of the softmax weights; the logsumexp is before it
  bool need_logsumexp = false;       ///< else a backend may leave it out, and be faster in bf16
  int64_t block_size = 128;          ///< of flex's block mask, a multiple of 16
};

struct Attention {
  at::Tensor output;     ///< [B, H, T, D] in q's dtype
  at::Tensor logsumexp;  ///< [B, H, T] natural log, fp32 (fp64 for fp64 inputs); may be undefined
                         ///< unless it was asked for
};

/// Exact softmax attention, dropout(softmax(score(scale * q k^T) where mask)) v, differentiable in
/// q, k, v.
///
/// q: [B, H, T, D]; k, v: [B, H_kv, S, D]; any strides; T, S >= 1; D <= 256; H divisible by H_kv:
/// query head h reads key head h / (H / H_kv). Query row i stands at key position i + S - T, so
/// that decoding with a cache is the same call. A row that may attend nothing gives output 0,
/// logsumexp -inf and gradients 0. What a row may not attend never changes it, though it be
/// infinite or NaN: so in flash and flex; elsewhere 0 times infinity may make it NaN.
/// `backend`: a name of registry.h, or "auto". Throws std::invalid_argument, naming the value, when
/// shapes, dtypes or devices do not fit, when a captured tensor is missing, or when the named
/// backend cannot run the spec. Source of the tiled algorithm: Dao, "FlashAttention-2",
/// arXiv:2307.08691.
Attention attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                 const Spec& spec = {}, const std::string& backend = "auto");

}  // namespace nanoflex
