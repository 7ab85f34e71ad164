#pragma once

#include <cstdint>
#include <memory>

#include "attention/flex/expression.h"

namespace nanoflex::flex {

/// Values low .. high, both included; integers exactly, saturating at +-2^62; floats rounded
/// outwards. A truth value is 0 .. 1: `low == 1` always true, `high == 0` always false.
/// `may_be_nan`: for floats, beside the values. `may_fail`: evaluate() might refuse it, because an
/// index may lie outside of its tensor.
struct Bounds {
  double low, high;
  bool may_be_nan = false, may_fail = false;
};

/// Index values, all ends included.
struct Box {
  int64_t b_low = 0, b_high = 0, h_low = 0, h_high = 0;
  int64_t q_low = 0, q_high = 0;  ///< positions among the keys, not rows
  int64_t kv_low = 0, kv_high = 0;
};

/// All indices of B batches, H heads and S keys, of which the last T are the queries' positions.
inline Box whole_box(int64_t B, int64_t H, int64_t T, int64_t S) {
  return {.b_high = B - 1, .h_high = H - 1, .q_low = S - T, .q_high = S - 1, .kv_high = S - 1};
}

/// What evaluate() computes floats in: fp32 (masks, and scores in fp32), or either that or fp64.
enum class Floats { kSingle, kSingleOrDouble };

/// Interval arithmetic on one expression (Moore, "Interval Analysis", 1966), many boxes. Captured
/// tensors are on the CPU and must not change while this lives; the least and greatest element of a
/// tensor's parts come from tables that are made on construction.
class Bounder {
 public:
  /// Throws std::invalid_argument for an unbound tensor. In fp32 alone bounds are tighter: over a
  /// single point they are the value, unless it went through exp, log, sqrt, tanh or sigmoid.
  explicit Bounder(const Expression& expression, Floats floats = Floats::kSingleOrDouble);
  ~Bounder();
  Bounder(const Bounder&) = delete;
  Bounder& operator=(const Bounder&) = delete;

  /// Contains the expression's value at every point of the box.
  Bounds over(const Box& box) const;

  /// Of a part of the expression, in the box that over() was last called with. REQUIRES: `part`'s
  /// node is in the tree.
  Bounds of(const Expression& part) const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace nanoflex::flex
