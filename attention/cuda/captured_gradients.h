#pragma once

#include <ATen/Functions.h>

#include <vector>

#include "attention/fused.h"

namespace nanoflex::cuda {

/// Gradients of flex::differentiable_tensors(options.score), in its order, from what forward_cuda()
/// returned; arguments as of backward_cuda(). Plain tensor operations on some query rows at a time,
/// of at most 2^24 pairs: the time of plain attention, in memory that does not grow with T. Bit for
/// bit the same in every run. On any device.
std::vector<at::Tensor> captured_gradients(const at::Tensor& q, const at::Tensor& k,
                                           const at::Tensor& v, const FusedResult& result,
                                           const at::Tensor& d_output,
                                           const at::Tensor& d_logsumexp,
                                           const FusedOptions& options);

}  // namespace nanoflex::cuda
