#pragma once

#include <ATen/Functions.h>

namespace nanoflex {

/// What a device does at best, as LibTorch reaches it.
struct MachineLimits {
  double flops_per_second = 0;  ///< product of two 2048 x 2048 matrices
  double bytes_per_second = 0;  ///< copy of 64 MB, bytes read and bytes written
};

/// The best of a few tries, half a second of work on a CPU.
MachineLimits measure_limits(at::Device device, at::ScalarType dtype);

}  // namespace nanoflex
