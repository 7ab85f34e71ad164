#pragma once

#include <ATen/Functions.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "attention/attention.h"

namespace nanoflex {

/// Whether query position q may see key kv, on plain numbers.
using Rule = std::function<bool(int64_t b, int64_t h, int64_t q, int64_t kv)>;

/// One attention problem with its mask said twice: as an expression and as a plain rule.
struct Case {
  std::string name;
  int64_t B, H, H_kv, T, S, D;
  flex::Expression mask;
  Rule rule;
};

/// Ragged lengths and head sizes, grouped heads, T != S, and every kind of mask.
std::vector<Case> cases();

/// Everything that attention gives and takes: q, k, v, the gradients of its two results, its
/// results and its gradients. Tensors are [B, H, T, D], [B, H_kv, S, D] or [B, H, T].
struct Tensors {
  at::Tensor q, k, v, d_output, d_logsumexp;
  at::Tensor output, logsumexp, dq, dk, dv;
};

/// Random fp64 q, k, v and output gradients, whose values the dtype can hold.
Tensors random_inputs(const Case& problem, at::ScalarType dtype, uint64_t seed = 1);

/// Results and gradients by the definition, in fp64, one number at a time.
Tensors by_definition(const Case& problem, const Tensors& inputs);

/// Results and gradients by the obvious tensor formula in `dtype`, k and v repeated over the heads.
Tensors by_plain_formula(const Case& problem, const Tensors& inputs, at::ScalarType dtype);

/// Results and gradients of a backend; logsumexp is left undefined unless `with_logsumexp`.
Tensors by_backend(const std::string& backend, const Case& problem, const Tensors& inputs,
                   at::ScalarType dtype, bool with_logsumexp);

/// The message of the std::invalid_argument that `action` throws; "" when it throws none.
std::string refusal(const std::function<void()>& action);

}  // namespace nanoflex
