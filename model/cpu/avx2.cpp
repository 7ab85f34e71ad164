#include "model/cpu/head_tile.h"

namespace nanoflex::cpu {

HeadKernelSet avx2_head_kernels() {
  return {"avx2", head_kernels_of<Avx2Math, float>(), head_kernels_of<Avx2Math, uint16_t>()};
}

}  // namespace nanoflex::cpu
