#include "attention/cpu/instructions.h"
#include "model/cpu/head_tile.h"

namespace nanoflex::cpu {

HeadKernelSet avx512_bf16_head_kernels() {
  return {"avx512_bf16", head_kernels_of<Avx512Math, float>(),
          head_kernels_of<BFloat16Math<NativeDot>, uint16_t>()};
}

}  // namespace nanoflex::cpu
