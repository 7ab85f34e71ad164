// The model's kernels of one instruction set, as a row of pointers.
#pragma once

#include "model/cpu/head_kernels.h"
#include "model/cpu/layer_kernels.h"
#include "model/cpu/update_kernels.h"

namespace nanoflex::cpu {

/// For inputs of one dtype.
struct ModelKernels {
  HeadKernels head;
  LayerKernels layers;
};

struct ModelKernelSet {
  const char* name;  ///< as in attention/cpu/dispatch.h
  ModelKernels float32, bfloat16;
  UpdateKernels updates;
};

ModelKernelSet portable_model_kernels();
ModelKernelSet avx2_model_kernels();
ModelKernelSet avx512_model_kernels();
ModelKernelSet avx512_bf16_model_kernels();
ModelKernelSet amx_model_kernels();

ModelKernelSet emulated_avx512_model_kernels();
ModelKernelSet emulated_avx512_bf16_model_kernels();
ModelKernelSet emulated_amx_model_kernels();

}  // namespace nanoflex::cpu
