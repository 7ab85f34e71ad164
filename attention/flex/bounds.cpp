#include "attention/flex/bounds.h"

#include <algorithm>
#include <cmath>

#include "attention/flex/interval_program.h"

namespace nanoflex::flex {
namespace {

constexpr int64_t kSaturated = int64_t{1} << 62;

// Not above x: doubles hold integers to 2^53 only.
double double_at_most(int64_t x) {
  x = std::clamp(x, -kSaturated, kSaturated);
  const auto rounded = static_cast<double>(x);
  return static_cast<int64_t>(rounded) > x ? std::nextafter(rounded, -kInfinity) : rounded;
}

double double_at_least(int64_t x) {
  x = std::clamp(x, -kSaturated, kSaturated);
  return -double_at_most(-x);
}

Bounds bounds_of(const ValueRange& value, Type type) {
  if (type != Type::kFloat) {
    return {double_at_most(value.whole.low), double_at_least(value.whole.high), false,
            value.may_fail};
  }
  if (value.real.only_nan()) return {-kInfinity, kInfinity, true, value.may_fail};
  return {value.real.low, value.real.high, value.real.may_be_nan, value.may_fail};
}

}  // namespace

struct Bounder::Implementation {
  IntervalProgram program;
  Type type;
};

Bounder::Bounder(const Expression& expression, Floats floats)
    : implementation_(new Implementation{IntervalProgram(expression, floats), expression.type()}) {}
Bounder::~Bounder() = default;

Bounds Bounder::over(const Box& box) const {
  return bounds_of(implementation_->program.run(box), implementation_->type);
}

Bounds Bounder::of(const Expression& part) const {
  return bounds_of(implementation_->program.value(part.node()), part.type());
}

}  // namespace nanoflex::flex
