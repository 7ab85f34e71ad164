#pragma once

#include "attention/cuda/kernels.h"

namespace nanoflex::cuda {

/// The kernel of head_loss.cuh for logits of a type; takes HeadParams, a block for each row.
Kernel head_kernel(Type type);

}  // namespace nanoflex::cuda
