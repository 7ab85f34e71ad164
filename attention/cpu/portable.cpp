#include "attention/cpu/instantiate.h"

namespace nanoflex::cpu {

KernelSet portable_kernels() {
  return {"portable", kernels_of<PortableMath, float>(), kernels_of<PortableMath, uint16_t>()};
}

}  // namespace nanoflex::cpu
