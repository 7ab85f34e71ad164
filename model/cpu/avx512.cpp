#include "model/cpu/instantiate.h"

namespace nanoflex::cpu {

ModelKernelSet avx512_model_kernels() { return model_kernel_set<Avx512Math, Avx512Math>("avx512"); }

}  // namespace nanoflex::cpu
