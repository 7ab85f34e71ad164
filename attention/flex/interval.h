#pragma once

#include <cstdint>
#include <limits>

#include "attention/flex/bounds.h"
#include "attention/flex/operators.h"

namespace nanoflex::flex {

/// All integers low .. high. What may overflow is any integer, as it wraps around.
struct Integers {
  int64_t low = 0, high = 0;
  bool single() const { return low == high; }
};
constexpr Integers kAnyInteger = {std::numeric_limits<int64_t>::min(),
                                  std::numeric_limits<int64_t>::max()};

/// All floats low .. high, and perhaps NaN. `low > high`: nothing but NaN.
struct Reals {
  double low = 0, high = 0;
  bool may_be_nan = false;
  bool only_nan() const { return low > high; }
};
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr Reals kAnyReal = {-kInfinity, kInfinity, true};
constexpr Reals kOnlyNan = {kInfinity, -kInfinity, true};

// What evaluate() makes of any two values of the operands lies in the result; where both are single
// values, so is the result.
Integers negate(Integers a);
Integers absolute(Integers a);
Integers add(Integers a, Integers b);
Integers subtract(Integers a, Integers b);
Integers multiply(Integers a, Integers b);
Integers divide(Integers a, Integers b);
Integers remainder(Integers a, Integers b);
Integers minimum(Integers a, Integers b);
Integers maximum(Integers a, Integers b);
Integers hull(Integers a, Integers b);

// The same for floats, which are rounded in the precisions that `floats` says.
Reals to_reals(Integers a, Floats floats);
Reals to_reals(double low, double high, Floats floats);
Reals negate(Reals a);
Reals absolute(Reals a);
Reals add(Reals a, Reals b, Floats floats);
Reals subtract(Reals a, Reals b, Floats floats);
Reals multiply(Reals a, Reals b, Floats floats);
Reals divide(Reals a, Reals b, Floats floats);
Reals remainder(Reals a, Reals b, Floats floats);
Reals minimum(Reals a, Reals b);
Reals maximum(Reals a, Reals b);
Reals hull(Reals a, Reals b);
/// kExp, kLog, kSqrt, kTanh or kSigmoid.
Reals apply_function(Op op, Reals a);
/// The greatest integer not above, which saturates at +-2^24; 0 for NaN.
Integers floor(Reals a);

/// Which outcomes of comparing two values are in question.
enum Outcome : uint8_t { kLower = 1, kSame = 2, kHigher = 4, kUnordered = 8 };

/// Outcomes for which a comparison operator holds; 0 for other operators.
uint8_t outcomes_that_hold(Op comparison);

/// 0 .. 1, from the possible outcomes.
template <typename Interval>
Integers compare(const Interval& a, const Interval& b, uint8_t outcomes_that_hold) {
  uint8_t possible = 0;
  if (a.low < b.high) possible |= kLower;
  if (a.high > b.low) possible |= kHigher;
  if (a.low <= b.high && b.low <= a.high) possible |= kSame;
  if constexpr (requires { a.may_be_nan; }) {
    if (a.only_nan() || b.only_nan()) possible = 0;
    if (a.may_be_nan || b.may_be_nan) possible |= kUnordered;
  }
  const bool may_fail = (possible & ~outcomes_that_hold) != 0;
  const bool may_hold = (possible & outcomes_that_hold) != 0;
  return {may_fail ? 0 : 1, may_hold ? 1 : 0};
}

}  // namespace nanoflex::flex
