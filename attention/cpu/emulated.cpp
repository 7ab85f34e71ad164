// What a machine may lack, in plain C++: the same kernels over the same tiles and registers.
#include "attention/cpu/amx.h"
#include "attention/cpu/instantiate.h"

namespace nanoflex::cpu {

KernelSet emulated_avx512_kernels() {
  return {"avx512, emulated", kernels_of<Avx512Math, float>(), kernels_of<Avx512Math, uint16_t>()};
}

KernelSet emulated_avx512_bf16_kernels() {
  return {"avx512_bf16, emulated", kernels_of<Avx512Math, float>(),
          kernels_of<BFloat16Math<PlainDot>, uint16_t>()};
}

KernelSet emulated_amx_kernels() {
  return {"amx, emulated", kernels_of<Avx512Math, float>(),
          kernels_of<AmxMath<PlainTiles>, uint16_t>()};
}

}  // namespace nanoflex::cpu
