// Masks and scores to be run by the fused CPU kernels, and the same on whole tensors.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "attention/cpu/dispatch.h"
#include "attention/flex/masks.h"
#include "tests/attention/accuracy.h"

namespace nanoflex {

struct FlexSizes {
  int64_t B, H, H_kv, T, S, D;
};

/// Ragged lengths, grouped heads, decoding, more queries than keys, blocks of 128 cut and whole.
const std::vector<FlexSizes>& flex_sizes();

/// Expressions over tensors of some sizes; `tensors` are those to which gradients flow.
struct Flex {
  flex::Expression mask = flex::full(), score = {};
  std::vector<at::Tensor> tensors = {};
};

struct NamedFlex {
  std::string name;
  std::function<Flex(const FlexSizes&)> make;
};

/// What people write, and what is hard.
std::vector<NamedFlex> flex_expressions();

struct FlexResult {
  Tensors tensors;
  std::vector<at::Tensor> captured;
};

Tensors flex_inputs(const FlexSizes& sizes, at::ScalarType dtype);
FlexResult by_vanilla(const Tensors& inputs, const Flex& flex, at::ScalarType dtype);
/// The logsumexp only where it is asked for: then weights rounded to bf16 are summed before that.
FlexResult by_kernels(const cpu::KernelSet& kernels, const Tensors& inputs, const Flex& flex,
                      at::ScalarType dtype, bool need_logsumexp = true);

/// Largest absolute difference.
double flex_error(const at::Tensor& x, const at::Tensor& truth);

/// As exact as the same expressions on whole tensors of the same type: at most twice their error,
/// and a unit of the largest of what is summed.
void expect_as_exact(const FlexResult& result, const FlexResult& plain, const FlexResult& truth,
                     const Flex& flex, at::ScalarType dtype);

}  // namespace nanoflex
