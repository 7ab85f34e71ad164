#include "evidence/passes.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <iostream>

#include "attention/flex/tile_code.h"
#include "attention/registry.h"
#include "trainer/memory.h"
#include "trainer/out_of_memory.h"

namespace nanoflex {

PassTensors random_tensors(at::IntArrayRef sizes, at::ScalarType dtype, at::Device device) {
  const auto kind = at::TensorOptions().dtype(dtype).device(device);
  const auto random = [&] { return at::randn(sizes, kind); };
  return {random().requires_grad_(), random().requires_grad_(), random().requires_grad_(),
          random()};
}

at::Tensor equal_documents(int64_t B, int64_t T, int64_t span) {
  return at::arange(T, at::kLong).div(span, "floor").expand({B, T}).contiguous();
}

std::vector<Contender> contenders_of(const std::string& pass, const PassTensors& x,
                                     const std::vector<Variant>& variants) {
  std::vector<Contender> contenders;
  for (const Variant& variant : variants) {
    const auto forward = [x, variant] {
      return attend(x.q, x.k, x.v, variant.spec, variant.backend).output;
    };
    std::vector<at::Tensor> inputs = {x.q, x.k, x.v};
    if (variant.spec.score.defined()) {
      const auto captured = flex::differentiable_tensors(variant.spec.score);
      inputs.insert(inputs.end(), captured.begin(), captured.end());
    }
    if (pass == "forward") {
      contenders.push_back({variant.name, [forward] {
                              const at::NoGradGuard no_grad;
                              forward();
                            }});
    } else if (pass == "backward") {
      contenders.push_back({variant.name, [x, inputs, output = forward()] {
                              torch::autograd::grad({output}, inputs, {x.d_output},
                                                    /*retain_graph=*/true);
                            }});
    } else {
      contenders.push_back({variant.name, [x, inputs, forward] {
                              torch::autograd::grad({forward()}, inputs, {x.d_output});
                            }});
    }
  }
  return contenders;
}

std::string why_skipped(const Variant& variant, const PassTensors& x) {
  if (variant.backend == "vanilla") {
    // Scores, weights, their gradients and copies: about eight T x S tensors in fp32.
    const double needed =
        32.0 * static_cast<double>(x.q.size(0) * x.q.size(1) * x.q.size(2) * x.k.size(2));
    const auto free = static_cast<double>(free_memory_bytes(x.q.device()));
    if (needed > free) {
      return c10::str("does not fit: needs about ", std::llround(needed / 1e9), " GB, ",
                      std::llround(free / 1e9), " GB are free");
    }
  }
  return named_backend(variant.backend).why_unsupported(x.q, x.k, x.v, variant.spec);
}

PassTimes measure_pass(const std::string& pass, const PassTensors& tensors,
                       std::vector<Variant>& variants, const MeasureOptions& options,
                       const std::function<void(const Variant&, const std::string&)>& dropped) {
  const Contender yardstick = gemm(tensors.q.scalar_type(), options.device);
  while (!variants.empty()) {
    try {
      auto contenders = contenders_of(pass, tensors, variants);
      contenders.push_back(yardstick);
      std::vector<Measured> times = measure(contenders, options);
      const Measured last = times.back();
      times.pop_back();
      return {times, last};
    } catch (const std::exception& problem) {
      const auto shortage = memory_shortage(problem);
      if (!shortage) throw;
      dropped(variants.front(), "does not fit: " + *shortage);
    }
    variants.erase(variants.begin());
  }
  return {};
}

void show_progress(size_t done, size_t count, const std::string& what) {
  if (isatty(STDERR_FILENO)) {
    const size_t filled = 20 * done / count;
    std::cerr << "\r\033[K[" << std::string(filled, '#') << std::string(20 - filled, '.') << "] "
              << done << "/" << count << " " << what << std::flush;
    if (done == count) std::cerr << "\n";
  } else {
    std::cerr << "bench: " << done << "/" << count << " " << what << std::endl;
  }
}

}  // namespace nanoflex
