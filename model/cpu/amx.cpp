#include "attention/cpu/amx.h"

#include "attention/cpu/instructions.h"
#include "model/cpu/instantiate.h"

namespace nanoflex::cpu {

ModelKernelSet amx_model_kernels() {
  return {"amx", model_kernels_of<Avx512Math, float>(),
          model_kernels_of<AmxMath<NativeTiles>, uint16_t>()};
}

}  // namespace nanoflex::cpu
