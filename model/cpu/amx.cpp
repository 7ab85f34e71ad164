#include "attention/cpu/amx.h"

#include "attention/cpu/instructions.h"
#include "model/cpu/instantiate.h"

namespace nanoflex::cpu {

ModelKernelSet amx_model_kernels() {
  return model_kernel_set<Avx512Math, AmxMath<NativeTiles>>("amx");
}

}  // namespace nanoflex::cpu
