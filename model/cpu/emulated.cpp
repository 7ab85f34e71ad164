// What a machine may lack, in plain C++.
#include "attention/cpu/amx.h"
#include "model/cpu/instantiate.h"

namespace nanoflex::cpu {

ModelKernelSet emulated_avx512_model_kernels() {
  return model_kernel_set<Avx512Math, Avx512Math>("avx512, emulated");
}

ModelKernelSet emulated_avx512_bf16_model_kernels() {
  return model_kernel_set<Avx512Math, BFloat16Math<PlainDot>>("avx512_bf16, emulated");
}

ModelKernelSet emulated_amx_model_kernels() {
  return model_kernel_set<Avx512Math, AmxMath<PlainTiles>>("amx, emulated");
}

}  // namespace nanoflex::cpu
