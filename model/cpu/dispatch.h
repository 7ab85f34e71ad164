#pragma once

#include <ATen/Functions.h>

#include <vector>

#include "model/cpu/kernels.h"

namespace nanoflex::cpu {

/// The set that goes with attention's chosen_kernels().
const ModelKernelSet& chosen_model_kernels();

/// Every set on any machine, for tests: those that this CPU cannot run are emulated.
std::vector<ModelKernelSet> all_model_kernels();

/// Whether there are kernels for such a tensor, and its row of the set. REQUIRES for the second:
/// the first.
bool has_model_kernels(const at::Tensor& x);
const ModelKernels& of_dtype(const ModelKernelSet& set, const at::Tensor& x);

}  // namespace nanoflex::cpu
