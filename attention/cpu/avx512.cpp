#include "attention/cpu/instantiate.h"

namespace nanoflex::cpu {

KernelSet avx512_kernels() {
  return {"avx512", kernels_of<Avx512Math, float>(), kernels_of<Avx512Math, uint16_t>()};
}

}  // namespace nanoflex::cpu
