#include "attention/cpu/instantiate.h"

namespace nanoflex::cpu {

KernelSet avx2_kernels() {
  return {"avx2", kernels_of<Avx2Math, float>(), kernels_of<Avx2Math, uint16_t>()};
}

}  // namespace nanoflex::cpu
