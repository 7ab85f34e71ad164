#pragma once

#include <ATen/Functions.h>

#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "attention/flex/expression.h"
#include "attention/flex/parse.h"

namespace nanoflex::flex {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// One of every kind that masks and scores read: "document" [B, S] and "table" [7] of integers,
/// "padding" [B, S] of truth values, and "slopes" [H], "bias" [H, 2 S - 1] and "temperature" [] of
/// `dtype`.
NamedTensors random_tensors(std::mt19937_64& random, int64_t B, int64_t H, int64_t S,
                            at::ScalarType dtype = at::kFloat);

Vocabulary vocabulary_of(const NamedTensors& tensors);

/// Makes random expressions. Every index is inside its tensor, integers stay below 2^31, and floats
/// are moderate: their derivatives too, except where two sides of min, max, abs, floor, % or a
/// comparison meet. `depth` 0 gives a leaf; 3 to 5 are interesting.
struct RandomExpression {
  std::mt19937_64& random;
  int64_t B = 1, H = 1, T = 1, S = 1;
  NamedTensors tensors = {};  ///< captured, bound
  bool wild = false;          ///< also what gives NaN and infinities

  Expression mask(int depth) { return truth(depth, false); }
  Expression score(int depth) { return number(depth, true); }

  Expression truth(int depth, bool with_score);
  Expression integer(int depth, bool with_score);
  Expression number(int depth, bool with_score);  ///< a float

 private:
  int64_t pick(int64_t choices) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(choices));
  }
  Expression comparison(const Expression& a, const Expression& b);
  Expression integer_leaf();
  Expression number_leaf(bool with_score);
  Expression real_function(const Expression& x);
  Expression quotient(const Expression& a, const Expression& b);
  Expression remainder(const Expression& a, const Expression& b);
  Expression index_below(int64_t size, int depth, bool with_score);
  /// Undefined when there is no tensor of this type.
  Expression load(Type type, int depth, bool with_score);
};

}  // namespace nanoflex::flex
