#pragma once

#include <ATen/Functions.h>

#include "model/cpu/kernels.h"

namespace nanoflex {

struct HeadResult {
  at::Tensor losses;       ///< [N] fp32 in nats, 0 where the target is -1
  at::Tensor dx, dweight;  ///< of the losses' sum times `factor`; undefined unless asked for
};

struct HeadOptions {
  double factor = 1;      ///< of the gradients
  double z_loss = 0;      ///< as in head.h
  bool gradients = true;  ///< else losses only
};

/// Cross-entropy of head.h's logits, and its gradients, on tiles that stay in cache: logits exist
/// for a chunk of at most HeadKernels::rows at a time, and nothing is computed twice. x: [N, C];
/// weight: [V, C]; both fp32 or both bf16, contiguous; targets: [N] int64, contiguous, below V. dx
/// is in x's dtype, dweight in fp32. The same bits for any number of threads.
HeadResult head_cpu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
                    const HeadOptions& options, const cpu::ModelKernelSet& kernels);

}  // namespace nanoflex
