#include "attention/cpu/amx.h"

#include "attention/cpu/instructions.h"
#include "model/cpu/head_tile.h"

namespace nanoflex::cpu {

HeadKernelSet amx_head_kernels() {
  return {"amx", head_kernels_of<Avx512Math, float>(),
          head_kernels_of<AmxMath<NativeTiles>, uint16_t>()};
}

}  // namespace nanoflex::cpu
