#include "attention/cpu/instantiate.h"

namespace nanoflex::cpu {

KernelSet avx2_kernels() {
  using Math = Float32Math<8, 6, 2>;
  return {"avx2", kernels_of<Math, float>(), kernels_of<Math, uint16_t>()};
}

}  // namespace nanoflex::cpu
