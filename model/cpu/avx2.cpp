#include "model/cpu/instantiate.h"

namespace nanoflex::cpu {

ModelKernelSet avx2_model_kernels() {
  return {"avx2", model_kernels_of<Avx2Math, float>(), model_kernels_of<Avx2Math, uint16_t>()};
}

}  // namespace nanoflex::cpu
