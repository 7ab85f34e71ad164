#pragma once

#include <torch/types.h>

namespace nanoflex {

inline constexpr double kLogitSoftcap = 15;

/// The head's logits: softcap * tanh(x weight^T / softcap), fp32 (fp64 for fp64 inputs).
/// x: [N, C]; weight: [V, C]; result: [N, V].
at::Tensor head_logits(const at::Tensor& x, const at::Tensor& weight);

/// Cross-entropy of each row in nats, [N] fp32, 0 where the target is -1; not differentiable.
/// targets: [N] int64. Logits exist for a chunk of rows at a time only.
at::Tensor head_token_losses(const at::Tensor& x, const at::Tensor& weight,
                             const at::Tensor& targets);

/// The sum of those losses divided by `count`, a scalar, differentiable in x and weight. The
/// gradient is taken while a chunk's logits are at hand, so nothing of size N x V is ever kept.
at::Tensor head_loss(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
                     int64_t count);

/// The definition of head_loss in plain differentiable tensors; holds all N x V logits.
at::Tensor head_loss_reference(const at::Tensor& x, const at::Tensor& weight,
                               const at::Tensor& targets, int64_t count);

}  // namespace nanoflex
