#include "model/cpu/head_tile.h"

namespace nanoflex::cpu {

HeadKernelSet avx512_head_kernels() {
  return {"avx512", head_kernels_of<Avx512Math, float>(), head_kernels_of<Avx512Math, uint16_t>()};
}

}  // namespace nanoflex::cpu
