#include "attention/cpu/amx.h"

#include "attention/cpu/instantiate.h"
#include "attention/cpu/instructions.h"

namespace nanoflex::cpu {

KernelSet amx_kernels() {
  return {"amx", kernels_of<Avx512Math, float>(), kernels_of<AmxMath<NativeTiles>, uint16_t>()};
}

}  // namespace nanoflex::cpu
