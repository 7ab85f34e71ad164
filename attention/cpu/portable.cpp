#include "attention/cpu/instantiate.h"

namespace nanoflex::cpu {

KernelSet portable_kernels() {
  using Math = Float32Math<4, 6, 2>;
  return {"portable", kernels_of<Math, float>(), kernels_of<Math, uint16_t>()};
}

}  // namespace nanoflex::cpu
