// Kernels of kernels.h on a GPU. Only in builds with NANOFLEX_CUDA.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <initializer_list>
#include <string>

#include "attention/cuda/kernels.h"

namespace nanoflex::cuda {

/// REQUIRES: bfloat16, float16 or float32.
Type type_of(c10::ScalarType type);

struct Device {
  int capability;  ///< 10 * major + minor
  int multiprocessors;
  int64_t l2_bytes;
  std::string architecture;  ///< "sm_90a"
};

/// The current device. Throws std::runtime_error when the driver has none.
const Device& current_device();

struct Grid {
  int64_t x = 1, y = 1;
};

/// Starts a kernel with its parameters (of the types that its source names, passed by value; what
/// it does not take may follow) on the current device and stream; compiles and loads it when it is
/// first met.
void launch(const Kernel& kernel, const Grid& grid, std::initializer_list<const void*> params);

}  // namespace nanoflex::cuda
