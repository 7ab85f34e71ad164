// Turns arithmetics, for inputs in fp32 and in bf16, into their kernels.
#pragma once

#include "model/cpu/head_tile.h"
#include "model/cpu/kernels.h"
#include "model/cpu/layer_tile.h"
#include "model/cpu/update_tile.h"

namespace nanoflex::cpu {
namespace {

template <typename Math, typename Input>
ModelKernels model_kernels_of() {
  return {head_kernels_of<Math, Input>(), layer_kernels_of<Math, Input>()};
}

template <typename Math, typename HalfMath>
ModelKernelSet model_kernel_set(const char* name) {
  return {name, model_kernels_of<Math, float>(), model_kernels_of<HalfMath, uint16_t>(),
          update_kernels_of<Math::kLanes>()};
}

}  // namespace
}  // namespace nanoflex::cpu
