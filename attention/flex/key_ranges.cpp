#include "attention/flex/key_ranges.h"

#include <algorithm>
#include <stdexcept>
#include <unordered_set>

#include "attention/flex/evaluate.h"

namespace nanoflex::flex {
namespace {

// Whether `of_key` is `of_query` with kv for q, and neither reads anything else but b.
bool same_function(const Expression& of_query, const Expression& of_key) {
  const Node &x = of_query.node(), &y = of_key.node();
  if (x.op == Op::kQuery) return y.op == Op::kKey;
  if (x.op == Op::kKey || x.op == Op::kHead || x.op != y.op || x.type != y.type) return false;
  if (x.op == Op::kConstant) return equal(of_query, of_key);
  if (x.op == Op::kLoad && !x.tensor.is_same(y.tensor)) return false;
  return std::equal(x.operands.begin(), x.operands.end(), y.operands.begin(), y.operands.end(),
                    same_function);
}

// The function of q, if the part is true where it has one value for both q and kv.
Expression grouped_by(const Expression& part) {
  const Node& node = part.node();
  if (node.op != Op::kEqual || node.operands[0].type() != Type::kInt) return {};
  for (const size_t i : {0, 1}) {
    if (same_function(node.operands[i], node.operands[1 - i])) return node.operands[i];
  }
  return {};
}

// Of each position where its own value is, as ranges; false where a value comes again.
bool find_groups(const int64_t* values, int64_t S, int32_t* ranges) {
  std::unordered_set<int64_t> known;
  for (int64_t begin = 0, end; begin < S; begin = end) {
    if (!known.insert(values[begin]).second) return false;
    for (end = begin + 1; end < S && values[end] == values[begin];) ++end;
    for (int64_t at = begin; at < end; ++at) {
      ranges[2 * at] = static_cast<int32_t>(begin);
      ranges[2 * at + 1] = static_cast<int32_t>(end);
    }
  }
  return true;
}

// [B or 1, S, 2]; undefined where the groups are none.
at::Tensor ranges_of(const Expression& group, int64_t B, int64_t S) {
  at::Tensor values;
  try {
    values = evaluate(group, {.B = B, .T = S, .S = S});
  } catch (const std::invalid_argument&) {  // who evaluates the pairs will say what is wrong
    return {};
  }
  const int64_t batches = values.size(0);
  values = values.expand({batches, 1, S, 1}).contiguous();
  at::Tensor ranges = at::empty({batches, S, 2}, at::kInt);
  for (int64_t b = 0; b < batches; ++b) {
    const bool found = find_groups(values.const_data_ptr<int64_t>() + b * S, S,
                                   ranges.mutable_data_ptr<int32_t>() + b * S * 2);
    if (!found) return {};
  }
  return ranges;
}

at::Tensor in_both(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() ? a : b;
  return at::stack(
      {at::maximum(a.select(2, 0), b.select(2, 0)), at::minimum(a.select(2, 1), b.select(2, 1))},
      -1);
}

}  // namespace

RangesAndRest split_ranges(const Expression& mask, int64_t B, int64_t S) {
  const Node& node = mask.node();
  if (node.op == Op::kAnd) {
    const RangesAndRest a = split_ranges(node.operands[0], B, S);
    const RangesAndRest b = split_ranges(node.operands[1], B, S);
    const Expression rest = a.rest.defined() ? a.rest : b.rest;
    return {.ranges = in_both(a.ranges, b.ranges),
            .rest = a.rest.defined() && b.rest.defined() ? a.rest & b.rest : rest};
  }
  if (const Expression group = grouped_by(mask); group.defined()) {
    const at::Tensor ranges = ranges_of(group, B, S);
    if (ranges.defined()) return {.ranges = ranges};
  }
  return {.rest = mask};
}

}  // namespace nanoflex::flex
