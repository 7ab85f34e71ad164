#include "model/cpu/instantiate.h"

namespace nanoflex::cpu {

ModelKernelSet portable_model_kernels() {
  return model_kernel_set<PortableMath, PortableMath>("portable");
}

}  // namespace nanoflex::cpu
