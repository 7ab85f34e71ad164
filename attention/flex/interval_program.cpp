#include "attention/flex/interval_program.h"

#include <algorithm>
#include <stdexcept>

namespace nanoflex::flex {
namespace {

enum Index : uint8_t { kOnBatch = 1, kOnHead = 2, kOnQuery = 4, kOnKey = 8 };

[[noreturn]] void reject_load(const Node& load, const std::string& what) {
  throw std::invalid_argument("[expression] tensor '" + load.name + "' " + what);
}

uint8_t index_bit(Op op) {
  switch (op) {
    case Op::kBatch:
      return kOnBatch;
    case Op::kHead:
      return kOnHead;
    case Op::kQuery:
      return kOnQuery;
    case Op::kKey:
      return kOnKey;
    default:
      return 0;
  }
}

uint8_t changes(const Box& a, const Box& b) {
  uint8_t changed = 0;
  if (a.b_low != b.b_low || a.b_high != b.b_high) changed |= kOnBatch;
  if (a.h_low != b.h_low || a.h_high != b.h_high) changed |= kOnHead;
  if (a.q_low != b.q_low || a.q_high != b.q_high) changed |= kOnQuery;
  if (a.kv_low != b.kv_low || a.kv_high != b.kv_high) changed |= kOnKey;
  return changed;
}

}  // namespace

IntervalProgram::IntervalProgram(const Expression& expression, Floats floats)
    : floats_(floats), expression_(expression) {
  compile(expression);
}

int IntervalProgram::compile(const Expression& expression) {
  const Node& node = expression.node();
  if (const auto found = step_of_.find(&node); found != step_of_.end()) return found->second;
  return step_of_[&node] = compile_node(node);
}

int IntervalProgram::compile_node(const Node& node) {
  Step step = {.op = node.op, .type = node.type, .depends = index_bit(node.op)};
  std::vector<int> operands;
  step.real = node.type == Type::kFloat;
  for (const Expression& operand : node.operands) {
    operands.push_back(compile(operand));
    step.depends |= steps_[operands.back()].depends;
    step.real |= node.op != Op::kSelect && operand.type() == Type::kFloat;
  }
  ValueRange constant;
  if (node.op == Op::kLoad) {
    step.table = table_of(node);
    step.sizes = node.tensor.sizes();
    step.indices = operands;
  } else {
    step.count = static_cast<int>(operands.size());
    std::copy(operands.begin(), operands.end(), step.operands.begin());
    step.outcomes_that_hold = outcomes_that_hold(node.op);
  }
  int64_t bits = 0;
  double number = 0;
  if (node.op == Op::kConstant && node.type == Type::kFloat) {
    number = node.constant.toDouble();
    constant.real = to_reals(number, number, floats_);
  } else if (node.op == Op::kConstant) {
    bits = node.constant.toLong();
    constant.whole = {bits, bits};
  }
  const Key key = {node.op, node.type, operands, bits, number, step.table};
  const auto [found, is_new] = compiled_.try_emplace(key, static_cast<int>(steps_.size()));
  if (is_new) {
    steps_.push_back(std::move(step));
    values_.push_back(constant);
  }
  return found->second;
}

const RangeTable* IntervalProgram::table_of(const Node& node) {
  if (!node.tensor.defined()) reject_load(node, "is not bound; bind() it before use");
  if (node.tensor.dim() != static_cast<int64_t>(node.operands.size())) {
    reject_load(node,
                c10::str(node.tensor.sizes(), " is indexed by ", node.operands.size(), " values"));
  }
  std::unique_ptr<RangeTable>& table = tables_[node.tensor.unsafeGetTensorImpl()];
  if (!table) table = make_range_table(node.tensor, floats_);
  return table.get();
}

const ValueRange& IntervalProgram::run(const Box& box) {
  const uint8_t changed = changes(box, box_);
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (!ran_ || (steps_[i].depends & changed) != 0) compute(steps_[i], values_[i], box);
  }
  box_ = box;
  ran_ = true;
  return values_.back();
}

Reals IntervalProgram::real(int step) const {
  const ValueRange& value = values_[step];
  return steps_[step].type == Type::kFloat ? value.real : to_reals(value.whole, floats_);
}

void IntervalProgram::compute(const Step& step, ValueRange& value, const Box& box) {
  switch (step.op) {
    case Op::kBatch:
      value.whole = {box.b_low, box.b_high};
      return;
    case Op::kHead:
      value.whole = {box.h_low, box.h_high};
      return;
    case Op::kQuery:
      value.whole = {box.q_low, box.q_high};
      return;
    case Op::kKey:
      value.whole = {box.kv_low, box.kv_high};
      return;
    case Op::kScore:
      value.real = kAnyReal;
      return;
    case Op::kConstant:
      return;
    case Op::kLoad:
      return load(step, value);
    case Op::kSelect:
      return compute_select(step, value);
    default:
      break;
  }
  const ValueRange &a = values_[step.operands[0]], &b = values_[step.operands[1]];
  value.may_fail = a.may_fail || (step.count == 2 && b.may_fail);
  return step.real ? compute_reals(step, value) : compute_integers(step, value);
}

void IntervalProgram::compute_integers(const Step& step, ValueRange& value) const {
  const Integers &a = whole(step, 0), &b = whole(step, 1);
  switch (step.op) {
    case Op::kNegate:
      value.whole = negate(a);
      return;
    case Op::kNot:
      value.whole = {1 - a.high, 1 - a.low};
      return;
    case Op::kAbs:
      value.whole = absolute(a);
      return;
    case Op::kFloor:
      value.whole = a;
      return;
    case Op::kAdd:
      value.whole = add(a, b);
      return;
    case Op::kSubtract:
      value.whole = subtract(a, b);
      return;
    case Op::kMultiply:
      value.whole = multiply(a, b);
      return;
    case Op::kDivide:
      value.whole = divide(a, b);
      return;
    case Op::kRemainder:
      value.whole = remainder(a, b);
      return;
    case Op::kAnd:
    case Op::kMin:
      value.whole = minimum(a, b);
      return;
    case Op::kOr:
    case Op::kMax:
      value.whole = maximum(a, b);
      return;
    default:
      value.whole = compare(a, b, step.outcomes_that_hold);
  }
}

void IntervalProgram::compute_reals(const Step& step, ValueRange& value) const {
  const Reals a = real(step, 0);
  const Reals b = step.count == 2 ? real(step, 1) : Reals{};
  switch (step.op) {
    case Op::kNegate:
      value.real = negate(a);
      return;
    case Op::kAbs:
      value.real = absolute(a);
      return;
    case Op::kFloor:
      value.whole = floor(a);
      return;
    case Op::kAdd:
      value.real = add(a, b, floats_);
      return;
    case Op::kSubtract:
      value.real = subtract(a, b, floats_);
      return;
    case Op::kMultiply:
      value.real = multiply(a, b, floats_);
      return;
    case Op::kDivide:
      value.real = divide(a, b, floats_);
      return;
    case Op::kRemainder:
      value.real = remainder(a, b, floats_);
      return;
    case Op::kMin:
      value.real = minimum(a, b);
      return;
    case Op::kMax:
      value.real = maximum(a, b);
      return;
    default:
      if (step.outcomes_that_hold != 0) {
        value.whole = compare(a, b, step.outcomes_that_hold);
      } else {
        value.real = apply_function(step.op, a);
      }
  }
}

void IntervalProgram::compute_select(const Step& step, ValueRange& value) const {
  const Integers condition = whole(step, 0);
  value.may_fail = false;
  for (const int operand : step.operands) value.may_fail |= values_[operand].may_fail;
  if (step.real) {
    const Reals yes = real(step, 1), no = real(step, 2);
    value.real = condition.low == 1 ? yes : condition.high == 0 ? no : hull(yes, no);
  } else {
    const Integers yes = whole(step, 1), no = whole(step, 2);
    value.whole = condition.low == 1 ? yes : condition.high == 0 ? no : hull(yes, no);
  }
}

// An index that may lie outside: the value is of those that lie inside, if any do.
void IntervalProgram::load(const Step& step, ValueRange& value) {
  bool may_fail = false, readable = true;
  ranges_.clear();
  for (size_t i = 0; i < step.indices.size(); ++i) {
    const ValueRange& index = values_[step.indices[i]];
    const Integers inside = {std::max<int64_t>(index.whole.low, 0),
                             std::min(index.whole.high, step.sizes[i] - 1)};
    may_fail |= index.may_fail || inside.low != index.whole.low || inside.high != index.whole.high;
    readable &= inside.low <= inside.high;
    ranges_.push_back(inside);
  }
  if (readable) {
    value = step.table->over(ranges_);
  } else {
    value = {.whole = step.type == Type::kBool ? Integers{0, 1} : kAnyInteger, .real = kAnyReal};
  }
  value.may_fail = may_fail;
}

}  // namespace nanoflex::flex
