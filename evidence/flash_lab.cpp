#include "evidence/flash_lab.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <atomic>
#include <stdexcept>

#include "attention/attention.h"
#include "attention/registry.h"
#include "evidence/measure.h"
#include "trainer/machine.h"
#include "trainer/memory.h"

namespace nanoflex {
namespace {

Spec spec_of(bool causal) { return {.mask = causal ? flex::causal() : flex::full()}; }

// SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators"): of numbers
// next to each other some that are not.
uint64_t mixed(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Counted from the largest number down, where nobody's own seeds are.
uint64_t next_seed() {
  static std::atomic<uint64_t> layers = 0;
  return ~layers++;
}

struct Inputs {
  at::Tensor q, k, v;
};

// [B, H, T, D], lying as [B, T, H, D].
Inputs random_inputs(const AttentionProblem& p) {
  const auto kind = at::TensorOptions().dtype(p.dtype).device(choose_device(p.device));
  const auto random = [&] {
    return at::randn({p.B, p.T, p.H, p.D}, kind).transpose(1, 2).detach().requires_grad_();
  };
  return {random(), random(), random()};
}

}  // namespace

FlashAttention::FlashAttention(const FlashAttentionOptions& options)
    : options_(options), seed_(options.seed ? *options.seed : next_seed()) {}

at::Tensor FlashAttention::operator()(const at::Tensor& q, const at::Tensor& k,
                                      const at::Tensor& v) {
  for (const at::Tensor* x : {&q, &k, &v}) {
    if (!x->defined() || x->dim() != 4) {
      throw std::invalid_argument("[attention] FlashAttention takes [B, T, H, D], is " +
                                  (x->defined() ? c10::str(x->sizes()) : "undefined"));
    }
  }
  Spec spec = spec_of(options_.causal);
  if (training_) {
    // Mixed twice: seed 1's first call is not seed 0's second.
    spec.dropout = {.probability = options_.dropout, .seed = mixed(mixed(seed_) + calls_++)};
  }
  return attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), spec, "flash")
      .output.transpose(1, 2);
}

Availability flash_available(const std::string& device) {
  try {
    const at::Tensor q = at::empty({1, 1, 1, 8}, at::TensorOptions(choose_device(device)));
    choose_backend("flash", q, q, q, {});
    return {true, ""};
  } catch (const std::invalid_argument& reason) {
    return {false, reason.what()};
  }
}

AttentionBenchmark benchmark_attention(const AttentionProblem& problem) {
  track_cpu_memory();
  const Inputs x = random_inputs(problem);
  const at::Tensor d_output = at::ones_like(x.q);
  const auto step = [&](const char* backend) {
    return Contender{backend, [=, spec = spec_of(problem.causal)] {
                       const at::Tensor output = attend(x.q, x.k, x.v, spec, backend).output;
                       torch::autograd::grad({output}, {x.q, x.k, x.v}, {d_output});
                     }};
  };
  const auto measured =
      measure({step("vanilla"), step("flash")}, {.repeat = problem.repeat, .device = x.q.device()});
  return {.standard_ms = measured[0].median_ms,
          .flash_ms = measured[1].median_ms,
          .speed_up = measured[0].median_ms / measured[1].median_ms,
          .standard_bytes = measured[0].peak_bytes,
          .flash_bytes = measured[1].peak_bytes,
          .standard = measured[0],
          .flash = measured[1]};
}

OutputComparison compare_outputs(const AttentionProblem& problem) {
  const at::NoGradGuard no_grad;
  const Inputs x = random_inputs(problem);
  const Spec spec = spec_of(problem.causal);
  return compare_attention(attend(x.q, x.k, x.v, spec, "flash").output,
                           attend(x.q, x.k, x.v, spec, "vanilla").output, problem.dtype);
}

OutputComparison compare_attention(const at::Tensor& found, const at::Tensor& standard,
                                   at::ScalarType dtype) {
  const at::Tensor a = found.to(at::kDouble), b = standard.to(at::kDouble);
  const at::Tensor difference = (a - b).abs();
  const double tolerance = dtype == at::kFloat ? 1e-5 : 2e-2;
  return {.max_difference = difference.max().item<double>(),
          .mean_difference = difference.mean().item<double>(),
          .allclose = at::allclose(a, b, tolerance, tolerance)};
}

}  // namespace nanoflex
