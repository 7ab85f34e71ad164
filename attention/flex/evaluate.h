#pragma once

#include <ATen/Functions.h>

#include <cstdint>
#include <optional>

#include "attention/flex/expression.h"

namespace nanoflex::flex {

/// Half-open.
struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

struct EvaluateOptions {
  int64_t B = 1, H = 1;  ///< batch and (query) heads
  int64_t T = 1, S = 1;  ///< queries and keys; query row i stands at key position i + S - T
  at::Device device = at::kCPU;
  at::Tensor score = {};              ///< scaled scores, broadcastable to [B, H, rows, columns]
  std::optional<Range> rows = {};     ///< a tile's queries, of 0 .. T; all if not given
  std::optional<Range> columns = {};  ///< a tile's keys, of 0 .. S; all if not given
  std::optional<Range> batches = {}, heads = {};  ///< of 0 .. B and 0 .. H; all if not given
};

/// The expression's value at every (b, h, q, kv), as a tensor of four dimensions that broadcasts to
/// [batches, heads, rows, columns]: a dimension on which it does not depend stays 1. Truth values
/// are bool, integers int64, floats in the score's dtype (fp32 without one). Differentiable in the
/// score and in captured float tensors. Throws std::invalid_argument for an unbound tensor, one on
/// another device, and an index outside of it, by the tensor's name.
at::Tensor evaluate(const Expression& expression, const EvaluateOptions& options);

}  // namespace nanoflex::flex
