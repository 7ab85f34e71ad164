#include "model/cpu/head_tile.h"

namespace nanoflex::cpu {

HeadKernelSet portable_head_kernels() {
  return {"portable", head_kernels_of<PortableMath, float>(),
          head_kernels_of<PortableMath, uint16_t>()};
}

}  // namespace nanoflex::cpu
