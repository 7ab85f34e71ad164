// What a machine may lack, in plain C++.
#include "attention/cpu/amx.h"
#include "model/cpu/head_tile.h"

namespace nanoflex::cpu {

HeadKernelSet emulated_avx512_head_kernels() {
  return {"avx512, emulated", head_kernels_of<Avx512Math, float>(),
          head_kernels_of<Avx512Math, uint16_t>()};
}

HeadKernelSet emulated_avx512_bf16_head_kernels() {
  return {"avx512_bf16, emulated", head_kernels_of<Avx512Math, float>(),
          head_kernels_of<BFloat16Math<PlainDot>, uint16_t>()};
}

HeadKernelSet emulated_amx_head_kernels() {
  return {"amx, emulated", head_kernels_of<Avx512Math, float>(),
          head_kernels_of<AmxMath<PlainTiles>, uint16_t>()};
}

}  // namespace nanoflex::cpu
