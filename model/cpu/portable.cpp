#include "model/cpu/instantiate.h"

namespace nanoflex::cpu {

ModelKernelSet portable_model_kernels() {
  return {"portable", model_kernels_of<PortableMath, float>(),
          model_kernels_of<PortableMath, uint16_t>()};
}

}  // namespace nanoflex::cpu
