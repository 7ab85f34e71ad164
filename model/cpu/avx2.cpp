#include "model/cpu/instantiate.h"

namespace nanoflex::cpu {

ModelKernelSet avx2_model_kernels() { return model_kernel_set<Avx2Math, Avx2Math>("avx2"); }

}  // namespace nanoflex::cpu
