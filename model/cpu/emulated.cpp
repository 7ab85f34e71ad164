// What a machine may lack, in plain C++.
#include "attention/cpu/amx.h"
#include "model/cpu/instantiate.h"

namespace nanoflex::cpu {

ModelKernelSet emulated_avx512_model_kernels() {
  return {"avx512, emulated", model_kernels_of<Avx512Math, float>(),
          model_kernels_of<Avx512Math, uint16_t>()};
}

ModelKernelSet emulated_avx512_bf16_model_kernels() {
  return {"avx512_bf16, emulated", model_kernels_of<Avx512Math, float>(),
          model_kernels_of<BFloat16Math<PlainDot>, uint16_t>()};
}

ModelKernelSet emulated_amx_model_kernels() {
  return {"amx, emulated", model_kernels_of<Avx512Math, float>(),
          model_kernels_of<AmxMath<PlainTiles>, uint16_t>()};
}

}  // namespace nanoflex::cpu
