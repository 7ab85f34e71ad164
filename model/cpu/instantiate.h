// Turns an arithmetic into its row of kernels.
#pragma once

#include "model/cpu/head_tile.h"
#include "model/cpu/kernels.h"
#include "model/cpu/layer_tile.h"

namespace nanoflex::cpu {
namespace {

template <typename Math, typename Input>
ModelKernels model_kernels_of() {
  return {head_kernels_of<Math, Input>(), layer_kernels_of<Math, Input>()};
}

}  // namespace
}  // namespace nanoflex::cpu
