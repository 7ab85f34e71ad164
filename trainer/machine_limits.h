#pragma once

#include <ATen/Functions.h>

namespace nanoflex {

/// What a device does at best, as LibTorch reaches it.
struct MachineLimits {
  double flops_per_second = 0;  ///< product of two 2048 x 2048 matrices; on a GPU, 8192 x 8192
  double bytes_per_second = 0;  ///< copy of 64 MB, on a GPU 256 MB: bytes read and bytes written
};

/// The best of a few tries, half a second of work on a CPU.
MachineLimits measure_limits(at::Device device, at::ScalarType dtype);

/// Numbers from -0.5 to 0.5 that differ in most of their bits, as a product's inputs do: on equal
/// ones a GPU needs less power, and so runs faster. Takes nothing from random generators.
at::Tensor varied_numbers(at::IntArrayRef sizes, const at::TensorOptions& options);

}  // namespace nanoflex
