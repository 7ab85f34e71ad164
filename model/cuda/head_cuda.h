#pragma once

#include <ATen/Functions.h>

#include "model/head_cpu.h"

namespace nanoflex {

/// Whether head_cuda() takes x: on a GPU, in bf16, fp16 or fp32, and this build has CUDA.
bool has_head_cuda(const at::Tensor& x);

/// What head_cpu() computes, on a GPU: the logits of a chunk of rows by one matrix product, their
/// losses and gradient by one kernel in their place, which two more products take from there.
/// Statistics are fp32, and dweight is summed in fp32. The same bits in every run; nothing waits
/// for the GPU, so a target that is neither -1 nor below V is not refused: its loss is NaN. x: [N,
/// C]; weight: [V, C], of one dtype; targets: [N] int64, all contiguous. REQUIRES:
/// has_head_cuda(x). Throws std::runtime_error when the kernel does not compile or start.
HeadResult head_cuda(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
                     const HeadOptions& options);

}  // namespace nanoflex
