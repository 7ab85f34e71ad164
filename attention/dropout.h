#pragma once

#include <ATen/Functions.h>

#include <cstdint>

#include "attention/flex/evaluate.h"

namespace nanoflex {

/// Attention dropout: each weight is dropped with `probability`, in [0, 1), and the others are
/// divided by 1 - probability (Srivastava et al., 2014). Which ones is decided by counter-based
/// random bits (attention/philox.h) from the seed, the batch, the head, the row and the key: the
/// same in every backend, forward and backward.
struct Dropout {
  double probability = 0;
  uint64_t seed = 0;
};

/// Of some query rows, [B, H, rows, S], fp32 on the device: 0 for dropped weights, 1 / (1 -
/// probability) for kept ones.
at::Tensor dropout_factors(const Dropout& dropout, int64_t B, int64_t H, flex::Range rows,
                           int64_t S, at::Device device);

}  // namespace nanoflex
