#pragma once

#include <string>
#include <vector>

#include "attention/cpu/kernels.h"

namespace nanoflex::cpu {

/// The set of that name (portable, avx2, avx512, avx512_bf16, amx); for "" the fastest that this
/// CPU can run. Throws std::invalid_argument when there is no such set or the CPU cannot run it.
KernelSet kernels_named(const std::string& name);

/// kernels_named() what the environment variable NANOFLEX_CPU says, looked up once.
const KernelSet& chosen_kernels();

/// Whether this CPU can run the set of that name.
bool can_run(const std::string& name);

/// Every set on any machine, for tests: those that this CPU cannot run are emulated.
std::vector<KernelSet> all_kernels();

}  // namespace nanoflex::cpu
