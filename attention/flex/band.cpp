#include "attention/flex/band.h"

#include <algorithm>

namespace nanoflex::flex {
namespace {

constexpr int64_t kLargestConstant = int64_t{1} << 40;  // sums of these cannot overflow

// query * q + key * kv + constant.
struct Linear {
  int64_t query = 0, key = 0, constant = 0;
};

std::optional<Linear> scaled_sum(const std::optional<Linear>& a, const std::optional<Linear>& b,
                                 int64_t sign) {
  if (!a || !b) return std::nullopt;
  const Linear sum = {a->query + sign * b->query, a->key + sign * b->key,
                      a->constant + sign * b->constant};
  if (std::max(std::abs(sum.constant), std::abs(sum.query)) > kLargestConstant) return std::nullopt;
  return sum;
}

std::optional<Linear> linear(const Expression& expression) {
  const Node& node = expression.node();
  switch (node.op) {
    case Op::kQuery:
      return Linear{.query = 1};
    case Op::kKey:
      return Linear{.key = 1};
    case Op::kConstant: {
      if (node.type != Type::kInt) return std::nullopt;
      const int64_t value = node.constant.toLong();
      if (value > kLargestConstant || value < -kLargestConstant) return std::nullopt;
      return Linear{.constant = value};
    }
    case Op::kNegate:
      return scaled_sum(Linear{}, linear(node.operands[0]), -1);
    case Op::kAdd:
      return scaled_sum(linear(node.operands[0]), linear(node.operands[1]), 1);
    case Op::kSubtract:
      return scaled_sum(linear(node.operands[0]), linear(node.operands[1]), -1);
    default:
      return std::nullopt;
  }
}

// q - kv <= bound, or >= bound.
Band at_most(int64_t bound) { return {.left = bound}; }
Band at_least(int64_t bound) { return {.right = -bound}; }

std::optional<int64_t> smaller(std::optional<int64_t> a, std::optional<int64_t> b) {
  if (!a || !b) return a ? a : b;
  return std::min(*a, *b);
}

Band both(const Band& a, const Band& b) {
  return {smaller(a.left, b.left), smaller(a.right, b.right)};
}

std::optional<Band> comparison(const Node& node) {
  std::optional<Linear> difference =
      scaled_sum(linear(node.operands[0]), linear(node.operands[1]), -1);
  if (!difference) return std::nullopt;
  // d OP 0 with d = +-(q - kv) + constant, that is q - kv OP +-constant.
  const bool forward = difference->query == 1 && difference->key == -1;
  const bool backward = difference->query == -1 && difference->key == 1;
  if (!forward && !backward) return std::nullopt;
  const int64_t bound = forward ? -difference->constant : difference->constant;
  switch (node.op) {
    case Op::kLess:
      return forward ? at_most(bound - 1) : at_least(bound + 1);
    case Op::kLessEqual:
      return forward ? at_most(bound) : at_least(bound);
    case Op::kGreater:
      return forward ? at_least(bound + 1) : at_most(bound - 1);
    case Op::kGreaterEqual:
      return forward ? at_least(bound) : at_most(bound);
    case Op::kEqual:
      return both(at_most(bound), at_least(bound));
    default:
      return std::nullopt;
  }
}

}  // namespace

std::optional<Band> band_of(const Expression& mask) {
  const Node& node = mask.node();
  if (node.op == Op::kConstant && node.type == Type::kBool) {
    return node.constant.toBool() ? Band{} : Band{.left = -1, .right = 0};  // all, or none
  }
  if (node.op == Op::kAnd) {
    const auto a = band_of(node.operands[0]), b = band_of(node.operands[1]);
    if (!a || !b) return std::nullopt;
    return both(*a, *b);
  }
  return node.operands.size() == 2 ? comparison(node) : std::nullopt;
}

BandAndRest split_band(const Expression& mask) {
  if (const auto band = band_of(mask)) return {.band = *band};
  const Node& node = mask.node();
  if (node.op != Op::kAnd) return {.rest = mask};
  const BandAndRest a = split_band(node.operands[0]), b = split_band(node.operands[1]);
  BandAndRest result = {.band = both(a.band, b.band), .rest = a.rest.defined() ? a.rest : b.rest};
  if (a.rest.defined() && b.rest.defined()) result.rest = a.rest & b.rest;
  return result;
}

}  // namespace nanoflex::flex
