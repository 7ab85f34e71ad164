#include "attention/cpu/instructions.h"
#include "model/cpu/instantiate.h"

namespace nanoflex::cpu {

ModelKernelSet avx512_bf16_model_kernels() {
  return model_kernel_set<Avx512Math, BFloat16Math<NativeDot>>("avx512_bf16");
}

}  // namespace nanoflex::cpu
