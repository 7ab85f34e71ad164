// Intervals of floats. A sum, product or quotient is the rounded true result, and rounding is
// monotonous: so its bounds are the rounded bounds. fp32 operations on fp32 values may be computed
// in fp64 and rounded once more without harm (Figueroa, "When is double rounding innocuous?",
// 1995); of the other functions a few units in the last place are given away.
#include <algorithm>
#include <array>
#include <cmath>

#include "attention/flex/interval.h"

namespace nanoflex::flex {
namespace {

constexpr double kLargestSingle = std::numeric_limits<float>::max();
constexpr double kSmallestSingle = std::numeric_limits<float>::min();

// Less than x by the share, and below what flushing tiny results to zero could make of it.
double lowered(double x, double share) {
  return std::min(x - std::abs(x) * share - kSmallestSingle, kLargestSingle);
}

double rounded_down(double x, Floats floats) {
  const double single = static_cast<float>(x);
  if (floats == Floats::kSingle || single == x) return single;
  if (x < -kLargestSingle) return -kInfinity;
  const double low = lowered(x, 0x1p-22);
  return x > 0 ? std::max(0.0, low) : low;
}

double rounded_up(double x, Floats floats) { return -rounded_down(-x, floats); }

// For functions that LibTorch computes to about one unit in the last place: its sqrt too.
double below(double x) {
  if (std::isinf(x)) return x < 0 ? x : kLargestSingle;
  const double low = lowered(x, 0x1p-21);
  return low < -kLargestSingle ? -kInfinity : low;
}

double above(double x) { return -below(-x); }

bool has_zero(const Reals& a) { return a.low <= 0 && a.high >= 0; }
bool has_infinite(const Reals& a) { return std::isinf(a.low) || std::isinf(a.high); }
bool is_single(const Reals& a) { return a.low == a.high && !a.may_be_nan; }

using Corners = std::array<double, 4>;

Reals around(const Corners& corners, bool may_be_nan, Floats floats) {
  const auto [low, high] = std::minmax_element(corners.begin(), corners.end());
  return {rounded_down(*low, floats), rounded_up(*high, floats), may_be_nan};
}

double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }

Reals root_or_logarithm(Op op, Reals a) {
  const bool may_be_nan = a.may_be_nan || a.low < 0;
  if (a.high < 0) return kOnlyNan;
  const double low = std::max(a.low, 0.0), high = std::max(a.high, 0.0);
  if (op == Op::kLog) return {below(std::log(low)), above(std::log(high)), may_be_nan};
  return {std::max(0.0, below(std::sqrt(low))), above(std::sqrt(high)), may_be_nan};
}

}  // namespace

Reals to_reals(double low, double high, Floats floats) {
  return {rounded_down(low, floats), rounded_up(high, floats), false};
}

// Not by way of double, which would round twice.
Reals to_reals(Integers a, Floats floats) {
  const double low = static_cast<float>(a.low), high = static_cast<float>(a.high);
  if (floats == Floats::kSingle) return {low, high, false};
  return {std::min(low, static_cast<double>(a.low)), std::max(high, static_cast<double>(a.high)),
          false};
}

Reals negate(Reals a) { return {-a.high, -a.low, a.may_be_nan}; }

Reals absolute(Reals a) {
  if (a.only_nan() || a.low >= 0) return a;
  return {a.high <= 0 ? -a.high : 0, std::max(-a.low, a.high), a.may_be_nan};
}

Reals add(Reals a, Reals b, Floats floats) {
  if (a.only_nan() || b.only_nan()) return kOnlyNan;
  const bool cancels =
      (a.high == kInfinity && b.low == -kInfinity) || (a.low == -kInfinity && b.high == kInfinity);
  const double low = a.low + b.low, high = a.high + b.high;
  return {std::isnan(low) ? -kInfinity : rounded_down(low, floats),
          std::isnan(high) ? kInfinity : rounded_up(high, floats),
          a.may_be_nan || b.may_be_nan || cancels};
}

Reals subtract(Reals a, Reals b, Floats floats) { return add(a, negate(b), floats); }

Reals multiply(Reals a, Reals b, Floats floats) {
  if (a.only_nan() || b.only_nan()) return kOnlyNan;
  Corners corners = {a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high};
  for (double& corner : corners) {
    if (std::isnan(corner)) corner = 0;  // 0 times infinity; beside it stands 0 times any other
  }
  const bool undefined = (has_zero(a) && has_infinite(b)) || (has_infinite(a) && has_zero(b));
  return around(corners, a.may_be_nan || b.may_be_nan || undefined, floats);
}

Reals divide(Reals a, Reals b, Floats floats) {
  if (a.only_nan() || b.only_nan()) return kOnlyNan;
  const bool undefined = (has_zero(a) && has_zero(b)) || (has_infinite(a) && has_infinite(b));
  const bool may_be_nan = a.may_be_nan || b.may_be_nan || undefined;
  if (has_zero(b) || (has_infinite(a) && has_infinite(b))) {
    return {-kInfinity, kInfinity, may_be_nan};
  }
  return around({a.low / b.low, a.low / b.high, a.high / b.low, a.high / b.high}, may_be_nan,
                floats);
}

// The divisor's sign; as large as the divisor itself where a tiny negative value is rounded.
Reals remainder(Reals a, Reals b, Floats floats) {
  if (a.only_nan() || b.only_nan()) return kOnlyNan;
  const bool may_be_nan = a.may_be_nan || b.may_be_nan || has_zero(b) || has_infinite(a);
  if (a.low >= 0 && a.high < b.low) return {a.low, a.high, may_be_nan};
  const bool exact = floats == Floats::kSingle && is_single(a) && is_single(b) && !may_be_nan;
  if (exact && !has_infinite(b)) {
    const auto divisor = static_cast<float>(b.low);
    float rest = std::fmod(static_cast<float>(a.low), divisor);
    if (rest != 0 && (rest < 0) != (divisor < 0)) rest += divisor;
    return {rest, rest, false};
  }
  return {std::min(b.low, 0.0), std::max(b.high, 0.0), may_be_nan};
}

Reals minimum(Reals a, Reals b) {
  if (a.only_nan() || b.only_nan()) return kOnlyNan;
  return {std::min(a.low, b.low), std::min(a.high, b.high), a.may_be_nan || b.may_be_nan};
}

Reals maximum(Reals a, Reals b) { return negate(minimum(negate(a), negate(b))); }

Reals hull(Reals a, Reals b) {
  return {std::min(a.low, b.low), std::max(a.high, b.high), a.may_be_nan || b.may_be_nan};
}

Reals apply_function(Op op, Reals a) {
  if (a.only_nan()) return kOnlyNan;
  switch (op) {
    case Op::kExp:
      return {std::max(0.0, below(std::exp(a.low))), above(std::exp(a.high)), a.may_be_nan};
    case Op::kTanh:
      return {below(std::tanh(a.low)), above(std::tanh(a.high)),
              a.may_be_nan};  // kernels overshoot
    case Op::kSigmoid:
      return {std::max(0.0, below(sigmoid_of(a.low))), std::min(1.0, above(sigmoid_of(a.high))),
              a.may_be_nan};
    default:
      return root_or_logarithm(op, a);
  }
}

Integers floor(Reals a) {
  constexpr auto kLargest = static_cast<double>(kLargestFloor);
  if (a.only_nan()) return {0, 0};
  const Integers values = {
      static_cast<int64_t>(std::clamp(std::floor(a.low), -kLargest, kLargest)),
      static_cast<int64_t>(std::clamp(std::floor(a.high), -kLargest, kLargest))};
  return a.may_be_nan ? hull(values, {0, 0}) : values;
}

}  // namespace nanoflex::flex
