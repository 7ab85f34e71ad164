#pragma once

#include <ATen/Functions.h>

#include <functional>
#include <string>
#include <vector>

#include "attention/attention.h"
#include "evidence/measure.h"

namespace nanoflex {

/// q, k, v, which require gradients, and dO of a call of attention: [B, H, T, D].
struct PassTensors {
  at::Tensor q, k, v, d_output;
};
PassTensors random_tensors(at::IntArrayRef sizes, at::ScalarType dtype, at::Device device);

/// [B, T]: the numbers of documents of equal length, one after another.
at::Tensor equal_documents(int64_t B, int64_t T, int64_t span);

/// A way to run attention on them.
struct Variant {
  std::string name, backend;
  Spec spec = {};
};

/// The variants as contenders in one pass: "forward", "backward" (of a forward pass run here) or
/// "step" (both). Gradients flow to captured tensors too, where they ask for it.
std::vector<Contender> contenders_of(const std::string& pass, const PassTensors& tensors,
                                     const std::vector<Variant>& variants);

/// "" when the variant can run here, else why not: the backend's own reason, or, for plain tensors,
/// that forward and backward would not fit in the memory that is free now.
std::string why_skipped(const Variant& variant, const PassTensors& tensors);

/// Times of the variants, and of gemm() in turn with them.
struct PassTimes {
  std::vector<Measured> variants;
  Measured gemm;
};

/// Times the variants in one pass. While the machine's memory does not hold them after all, the
/// first leaves `variants`, and dropped() is told why: put what holds most first.
PassTimes measure_pass(
    const std::string& pass, const PassTensors& tensors, std::vector<Variant>& variants,
    const MeasureOptions& options,
    const std::function<void(const Variant&, const std::string& reason)>& dropped);

/// A line on stderr, or a bar on a terminal, that says how far a measurement is.
void show_progress(size_t done, size_t count, const std::string& what);

}  // namespace nanoflex
