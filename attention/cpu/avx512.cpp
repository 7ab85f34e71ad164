#include "attention/cpu/instantiate.h"

namespace nanoflex::cpu {

KernelSet avx512_kernels() {
  using Math = Float32Math<16, 12, 2>;
  return {"avx512", kernels_of<Math, float>(), kernels_of<Math, uint16_t>()};
}

}  // namespace nanoflex::cpu
