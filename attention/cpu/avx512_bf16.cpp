#include "attention/cpu/instantiate.h"
#include "attention/cpu/instructions.h"

namespace nanoflex::cpu {

KernelSet avx512_bf16_kernels() {
  return {"avx512_bf16", kernels_of<Avx512Math, float>(),
          kernels_of<BFloat16Math<NativeDot>, uint16_t>()};
}

}  // namespace nanoflex::cpu
