// Intervals of integers.
#include <algorithm>
#include <array>

#include "attention/flex/interval.h"

namespace nanoflex::flex {
namespace {

constexpr int64_t kLeast = kAnyInteger.low;

int64_t quotient(int64_t a, int64_t b) {
  if (b == 0) return 0;
  if (b == -1) return static_cast<int64_t>(0 - static_cast<uint64_t>(a));
  return a / b - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0);
}

int64_t rest(int64_t a, int64_t b) {
  if (b == 0 || b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

// Divisors of one sign: the quotient is monotonous in both operands.
Integers divide_by_signed(Integers a, Integers b) {
  if (a.low == kLeast && b.low <= -1 && b.high >= -1) return kAnyInteger;
  const std::array<int64_t, 4> corners = {quotient(a.low, b.low), quotient(a.low, b.high),
                                          quotient(a.high, b.low), quotient(a.high, b.high)};
  const auto [low, high] = std::minmax_element(corners.begin(), corners.end());
  return {*low, *high};
}

Integers remainder_by_signed(Integers a, Integers b) {
  const bool one_period = b.single() && quotient(a.low, b.low) == quotient(a.high, b.low);
  if (one_period) return {rest(a.low, b.low), rest(a.high, b.low)};
  if (b.high < 0) return {b.low + 1, 0};
  if (a.low < 0) return {0, b.high - 1};
  return a.high < b.low ? a : Integers{0, std::min(a.high, b.high - 1)};
}

// Over divisors below zero, zero (which gives 0) and above.
template <typename BySigned>
Integers over_signs(Integers a, Integers b, const BySigned& by_signed) {
  bool any = b.low <= 0 && b.high >= 0;
  Integers result;
  const auto include = [&](Integers divisors) {
    const Integers part = by_signed(a, divisors);
    result = any ? hull(result, part) : part;
    any = true;
  };
  if (b.low < 0) include({b.low, std::min<int64_t>(b.high, -1)});
  if (b.high > 0) include({std::max<int64_t>(b.low, 1), b.high});
  return result;
}

// Both ends of a result that wrapped around say nothing, unless it is one value.
Integers unless_wrapped(bool wrapped, bool single, Integers result) {
  return wrapped && !single ? kAnyInteger : result;
}

}  // namespace

Integers negate(Integers a) { return subtract({0, 0}, a); }

Integers absolute(Integers a) {
  if (a.low >= 0) return a;
  if (a.low == kLeast) return a.single() ? a : kAnyInteger;
  return {a.high <= 0 ? -a.high : 0, std::max(-a.low, a.high)};
}

Integers add(Integers a, Integers b) {
  Integers sum;
  const bool low_wraps = __builtin_add_overflow(a.low, b.low, &sum.low);
  const bool high_wraps = __builtin_add_overflow(a.high, b.high, &sum.high);
  return unless_wrapped(low_wraps || high_wraps, a.single() && b.single(), sum);
}

Integers subtract(Integers a, Integers b) {
  Integers difference;
  const bool low_wraps = __builtin_sub_overflow(a.low, b.high, &difference.low);
  const bool high_wraps = __builtin_sub_overflow(a.high, b.low, &difference.high);
  return unless_wrapped(low_wraps || high_wraps, a.single() && b.single(), difference);
}

Integers multiply(Integers a, Integers b) {
  std::array<int64_t, 4> corners = {};
  bool wraps = __builtin_mul_overflow(a.low, b.low, &corners[0]);
  wraps |= __builtin_mul_overflow(a.low, b.high, &corners[1]);
  wraps |= __builtin_mul_overflow(a.high, b.low, &corners[2]);
  wraps |= __builtin_mul_overflow(a.high, b.high, &corners[3]);
  const auto [low, high] = std::minmax_element(corners.begin(), corners.end());
  return unless_wrapped(wraps, a.single() && b.single(), {*low, *high});
}

Integers divide(Integers a, Integers b) {
  if (a.single() && b.single()) return {quotient(a.low, b.low), quotient(a.low, b.low)};
  return over_signs(a, b, divide_by_signed);
}

Integers remainder(Integers a, Integers b) { return over_signs(a, b, remainder_by_signed); }

Integers minimum(Integers a, Integers b) {
  return {std::min(a.low, b.low), std::min(a.high, b.high)};
}

Integers maximum(Integers a, Integers b) {
  return {std::max(a.low, b.low), std::max(a.high, b.high)};
}

Integers hull(Integers a, Integers b) { return {std::min(a.low, b.low), std::max(a.high, b.high)}; }

uint8_t outcomes_that_hold(Op comparison) {
  switch (comparison) {
    case Op::kEqual:
      return kSame;
    case Op::kNotEqual:
      return kLower | kHigher | kUnordered;
    case Op::kLess:
      return kLower;
    case Op::kLessEqual:
      return kLower | kSame;
    case Op::kGreater:
      return kHigher;
    case Op::kGreaterEqual:
      return kHigher | kSame;
    default:
      return 0;
  }
}

}  // namespace nanoflex::flex
