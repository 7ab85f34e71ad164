#include "attention/cpu/instructions.h"
#include "model/cpu/instantiate.h"

namespace nanoflex::cpu {

ModelKernelSet avx512_bf16_model_kernels() {
  return {"avx512_bf16", model_kernels_of<Avx512Math, float>(),
          model_kernels_of<BFloat16Math<NativeDot>, uint16_t>()};
}

}  // namespace nanoflex::cpu
