#include "model/cpu/dispatch.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "attention/cpu/dispatch.h"

namespace nanoflex::cpu {
namespace {

struct Candidate {
  std::string name;
  ModelKernelSet (*kernels)();
  ModelKernelSet (*emulated)();
};

// Names as in attention/cpu/dispatch.h.
const std::vector<Candidate>& candidates() {
  static const std::vector<Candidate> table = {
#if defined(__x86_64__)
    {"amx", amx_model_kernels, emulated_amx_model_kernels},
    {"avx512_bf16", avx512_bf16_model_kernels, emulated_avx512_bf16_model_kernels},
    {"avx512", avx512_model_kernels, emulated_avx512_model_kernels},
    {"avx2", avx2_model_kernels, portable_model_kernels},
#endif
    {"portable", portable_model_kernels, portable_model_kernels},
  };
  return table;
}

}  // namespace

const ModelKernelSet& chosen_model_kernels() {
  static const ModelKernelSet chosen = [] {
    const std::string name = chosen_kernels().name;
    const auto& all = candidates();
    const auto found = std::find_if(
        all.begin(), all.end(), [&](const Candidate& candidate) { return candidate.name == name; });
    if (found == all.end()) throw std::logic_error("the model has no kernels for " + name);
    return found->kernels();
  }();
  return chosen;
}

std::vector<ModelKernelSet> all_model_kernels() {
  std::vector<ModelKernelSet> all;
  for (const Candidate& candidate : candidates()) {
    all.push_back(can_run(candidate.name) ? candidate.kernels() : candidate.emulated());
  }
  return all;
}

bool has_model_kernels(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

const ModelKernels& of_dtype(const ModelKernelSet& set, const at::Tensor& x) {
  return x.scalar_type() == at::kFloat ? set.float32 : set.bfloat16;
}

}  // namespace nanoflex::cpu
