#pragma once

#include <ATen/Functions.h>

#include "model/cast_weight.h"

namespace nanoflex {

inline constexpr double kLogitSoftcap = 15;
inline constexpr int64_t kIgnoredTarget = -1;           ///< of rows that do not count
inline constexpr char kHeadScope[] = "nanoflex::head";  ///< of at::RecordFunction, for profiles

/// The head's logits: softcap * tanh(x weight^T / softcap), fp32 (fp64 for fp64 inputs).
/// x: [N, C]; weight: [V, C]; result: [N, V].
at::Tensor head_logits(const at::Tensor& x, const CastWeight& weight);

/// Cross-entropy of each row in nats, [N] fp32, 0 where the target is -1; not differentiable.
/// targets: [N] int64; others than -1 and tokens below V are refused on a CPU, and give NaN on a
/// GPU, which nothing waits for. Logits exist for a chunk of rows at a time only. Throws
/// std::invalid_argument for shapes that do not fit, as head_loss does.
at::Tensor head_token_losses(const at::Tensor& x, const CastWeight& weight,
                             const at::Tensor& targets);

struct HeadLossOptions {
  int64_t count = 1;  ///< what the losses' sum is divided by
  /// Adds z_loss times the squared logsumexp of the logits to each loss, which keeps them from
  /// growing (Chowdhery et al. 2022, "PaLM", section 5). 0 to 0.03.
  double z_loss = 0;
};

/// The sum of those losses divided by `count`, a scalar, differentiable in x and weight, once. The
/// gradient is taken while a chunk's logits are at hand, so nothing of size N x V is ever kept and
/// nothing is computed twice.
at::Tensor head_loss(const at::Tensor& x, const CastWeight& weight, const at::Tensor& targets,
                     const HeadLossOptions& options);

/// The definition of head_loss in plain differentiable tensors; holds all N x V logits.
at::Tensor head_loss_reference(const at::Tensor& x, const at::Tensor& weight,
                               const at::Tensor& targets, const HeadLossOptions& options);

}  // namespace nanoflex
