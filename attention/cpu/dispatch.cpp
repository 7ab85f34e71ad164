#include "attention/cpu/dispatch.h"

#include <ATen/cpu/Utils.h>

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <stdexcept>

#include "attention/nearest.h"

namespace nanoflex::cpu {
namespace {

struct Candidate {
  std::string name;
  bool (*can_run)();
  KernelSet (*kernels)();
  KernelSet (*emulated)();
};

// Whether the CPU has all of these features, by the names of LibTorch's list.
bool has(std::initializer_list<const char*> features) {
  static const auto capabilities = at::cpu::get_cpu_capabilities();
  return std::all_of(features.begin(), features.end(), [](const char* feature) {
    const auto found = capabilities.find(feature);
    return found != capabilities.end() && found->second.toBool();
  });
}

bool runs_anything() { return true; }
#if defined(__x86_64__)
bool has_avx2() { return has({"avx2", "fma3"}); }
#ifdef NANOFLEX_SANITIZE
bool has_avx512() { return false; }  // its kernels are not instrumented, the emulated ones are
#else
bool has_avx512() { return has({"avx512_f", "avx512_bw", "avx512_vl", "avx512_dq", "fma3"}); }
#endif
bool has_avx512_bf16() { return has_avx512() && has({"avx512_bf16", "avx512_vbmi"}); }
bool has_amx() {
  // The operating system grants the tile registers to a process that asks.
  return has_avx512_bf16() && has({"amx_tile", "amx_bf16"}) && at::cpu::init_amx();
}
#endif

// Fastest first.
const std::vector<Candidate>& candidates() {
  static const std::vector<Candidate> table = {
#if defined(__x86_64__)
    {"amx", has_amx, amx_kernels, emulated_amx_kernels},
    {"avx512_bf16", has_avx512_bf16, avx512_bf16_kernels, emulated_avx512_bf16_kernels},
    {"avx512", has_avx512, avx512_kernels, emulated_avx512_kernels},
    {"avx2", has_avx2, avx2_kernels, portable_kernels},
#endif
    {"portable", runs_anything, portable_kernels, portable_kernels},
  };
  return table;
}

}  // namespace

KernelSet kernels_named(const std::string& name) {
  std::vector<std::string> names;
  for (const Candidate& candidate : candidates()) {
    names.push_back(candidate.name);
    if (name.empty() && candidate.can_run()) return candidate.kernels();
    if (candidate.name != name) continue;
    if (candidate.can_run()) return candidate.kernels();
    throw std::invalid_argument("[attention] NANOFLEX_CPU asks for '" + name +
                                "', which this CPU cannot run; unset it");
  }
  throw std::invalid_argument("[attention] NANOFLEX_CPU must be one of " + join(names) + ", is '" +
                              name + "'");
}

const KernelSet& chosen_kernels() {
  static const KernelSet chosen = [] {
    const char* name = std::getenv("NANOFLEX_CPU");
    return kernels_named(name ? name : "");
  }();
  return chosen;
}

bool can_run(const std::string& name) {
  const auto& all = candidates();
  return std::any_of(all.begin(), all.end(), [&](const Candidate& candidate) {
    return candidate.name == name && candidate.can_run();
  });
}

std::vector<KernelSet> all_kernels() {
  std::vector<KernelSet> all;
  for (const Candidate& candidate : candidates()) {
    all.push_back(candidate.can_run() ? candidate.kernels() : candidate.emulated());
  }
  return all;
}

}  // namespace nanoflex::cpu
