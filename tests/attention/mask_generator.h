#pragma once

#include <cstdint>
#include <random>

#include "attention/flex/expression.h"

namespace nanoflex::flex {

/// Random masks and numbers over b, h, q, kv and small captured tensors of several dtypes, with NaN
/// and infinite elements, division by zero and negative divisors. No read lies outside of its
/// tensor.
class MaskGenerator {
 public:
  explicit MaskGenerator(uint64_t seed);

  Expression truth(int depth);
  Expression integer(int depth);
  Expression real(int depth);

  int64_t pick(int64_t choices) { return static_cast<int64_t>(random_() % choices); }

 private:
  Expression usual_mask();
  Expression integer_leaf();
  Expression real_leaf();
  Expression divisor(int depth);
  Expression captured_integer(int depth);

  std::mt19937_64 random_;
  Captured table_, small_, single_, weights_, wide_, visible_;
};

}  // namespace nanoflex::flex
