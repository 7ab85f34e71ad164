#include "model/cpu/instantiate.h"

namespace nanoflex::cpu {

ModelKernelSet avx512_model_kernels() {
  return {"avx512", model_kernels_of<Avx512Math, float>(),
          model_kernels_of<Avx512Math, uint16_t>()};
}

}  // namespace nanoflex::cpu
