#include "attention/flex/simplify.h"

#include <c10/util/hash.h>

#include <bit>
#include <cmath>
#include <optional>
#include <unordered_map>

#include "attention/flex/evaluate.h"

namespace nanoflex::flex {
namespace {

// All that a node is, with operands by identity: two nodes of one form are the same value.
struct Form {
  Op op;
  Type type;
  uint64_t constant;
  std::string name;
  const void* tensor;
  std::vector<const Node*> operands;
  bool operator==(const Form&) const = default;
};

struct FormHash {
  size_t operator()(const Form& form) const {
    size_t hash = c10::get_hash(static_cast<int>(form.op), static_cast<int>(form.type),
                                form.constant, form.name, form.tensor);
    for (const Node* operand : form.operands) {
      hash = c10::hash_combine(hash, std::hash<const Node*>()(operand));
    }
    return hash;
  }
};

Form form_of(const Node& node) {
  const uint64_t constant = node.type == Type::kFloat
                                ? std::bit_cast<uint64_t>(node.constant.toDouble())
                                : static_cast<uint64_t>(node.constant.toLong());
  Form form = {node.op, node.type, constant, node.name, node.tensor.unsafeGetTensorImpl(), {}};
  for (const Expression& operand : node.operands) form.operands.push_back(&operand.node());
  return form;
}

bool is_constant(const Expression& e) { return e.node().op == Op::kConstant; }

// A constant that stands for exactly this value: 0.0 is not -0.0. Not for truth values.
bool is(const Expression& e, double value) {
  const Node& node = e.node();
  if (node.op != Op::kConstant || node.type == Type::kBool) return false;
  const double constant = node.constant.toDouble();
  return constant == value && std::signbit(constant) == std::signbit(value);
}

bool is_truth(const Expression& e, bool value) {
  return is_constant(e) && e.type() == Type::kBool && e.node().constant.toBool() == value;
}

bool same(const Expression& a, const Expression& b) { return &a.node() == &b.node(); }

// The comparison that holds exactly where `op` does not. Beside NaN only == and != have one.
std::optional<Op> opposite(Op op, bool integers) {
  switch (op) {
    case Op::kEqual:
      return Op::kNotEqual;
    case Op::kNotEqual:
      return Op::kEqual;
    case Op::kLess:
      return integers ? std::optional(Op::kGreaterEqual) : std::nullopt;
    case Op::kLessEqual:
      return integers ? std::optional(Op::kGreater) : std::nullopt;
    case Op::kGreater:
      return integers ? std::optional(Op::kLessEqual) : std::nullopt;
    case Op::kGreaterEqual:
      return integers ? std::optional(Op::kLess) : std::nullopt;
    default:
      return std::nullopt;
  }
}

// Works from the leaves up. The rules see simplified operands, in which equal means same; each
// gives an undefined expression when it does not apply.
class Simplifier {
 public:
  Expression simplified(const Expression& expression) {
    const Node& node = expression.node();
    if (const auto found = done_.find(&node); found != done_.end()) return found->second;
    Node changed = node;
    for (Expression& operand : changed.operands) operand = simplified(operand);
    return done_[&node] = make(std::move(changed));
  }

 private:
  Expression make(Node node) {
    Expression simpler = folded(node);
    if (!simpler.defined()) simpler = rewritten(node);
    if (simpler.defined()) return is_constant(simpler) ? shared(simpler.node()) : simpler;
    return shared(std::move(node));
  }

  Expression make(Op op, Type type, std::vector<Expression> operands) {
    return make(Node{.op = op, .type = type, .operands = std::move(operands)});
  }

  Expression shared(Node node) {
    const auto [place, is_new] = nodes_.try_emplace(form_of(node));
    if (is_new) place->second = Expression(std::move(node));
    return place->second;
  }

  static Expression folded(const Node& node) {
    if (node.operands.empty() || node.op == Op::kLoad) return {};
    for (const Expression& operand : node.operands) {
      if (!is_constant(operand)) return {};
    }
    const auto value = [&](at::ScalarType dtype) {
      return evaluate(Expression(node), {.score = at::zeros({1, 1, 1, 1}, dtype)});
    };
    // Not what fp32 and fp64 see differently, and no NaN.
    const at::Tensor exact = value(at::kDouble), rounded = value(at::kFloat);
    if (!exact.to(rounded.scalar_type()).equal(rounded)) return {};
    if (node.type == Type::kBool) return exact.item<bool>();
    if (node.type == Type::kInt) return exact.item<int64_t>();
    return exact.item<double>();
  }

  Expression rewritten(const Node& node) {
    switch (node.op) {
      case Op::kNegate:
      case Op::kNot:
      case Op::kAbs:
      case Op::kFloor:
        return unary(node);
      case Op::kAdd:
      case Op::kSubtract:
        return sum(node);
      case Op::kMultiply:
      case Op::kDivide:
      case Op::kRemainder:
        return product(node);
      case Op::kAnd:
      case Op::kOr:
        return logic(node);
      case Op::kMin:
      case Op::kMax:
        return same(node.operands[0], node.operands[1]) ? node.operands[0] : Expression();
      case Op::kSelect:
        return choice(node);
      default:
        return node.operands.size() == 2 && describe(node.op).rule == Rule::kCompare
                   ? comparison(node)
                   : Expression();
    }
  }

  // `e` in the place of a node of this type; an integer has no way to become a float by itself.
  static Expression in_place(const Expression& e, Type type) {
    if (e.type() == type) return e;
    return is_constant(e) && type == Type::kFloat ? Expression(e.node().constant.toDouble())
                                                  : Expression();
  }

  // Whether its value can be left out: evaluate() never refuses it. Ask only where it is no float.
  bool droppable(const Expression& e) {
    const Node& node = e.node();
    if (node.op == Op::kLoad) return false;
    if (const auto found = droppable_.find(&node); found != droppable_.end()) return found->second;
    bool all = true;
    for (const Expression& operand : node.operands) all &= droppable(operand);
    return droppable_[&node] = all;
  }

  Expression unary(const Node& node) {
    const Node& inner = node.operands[0].node();
    if (node.op == Op::kAbs) {
      if (inner.op == Op::kAbs) return node.operands[0];
      return inner.op == Op::kNegate ? make(Op::kAbs, node.type, inner.operands) : Expression();
    }
    if (node.op == Op::kFloor) return inner.type == Type::kInt ? node.operands[0] : Expression();
    if (inner.op == node.op) return inner.operands[0];  // -- and !!
    if (node.op == Op::kNegate || describe(inner.op).rule != Rule::kCompare) return {};
    const bool integers =
        inner.operands[0].type() == Type::kInt && inner.operands[1].type() == Type::kInt;
    const std::optional<Op> negation = opposite(inner.op, integers);
    return negation ? make(*negation, Type::kBool, inner.operands) : Expression();
  }

  Expression sum(const Node& node) {
    const Expression &a = node.operands[0], &b = node.operands[1];
    const bool adds = node.op == Op::kAdd, whole = node.type == Type::kInt;
    const auto negated = [&](const Expression& e) {
      return e.node().op == Op::kNegate && e.type() == node.type;
    };
    // -0.0 + 0.0 is 0.0, so that only -0.0 may be added to a float and 0.0 be taken from it.
    if (is(b, whole || !adds ? 0.0 : -0.0)) return in_place(a, node.type);
    if (adds && is(a, whole ? 0.0 : -0.0)) return in_place(b, node.type);
    if (negated(b)) {
      return make(adds ? Op::kSubtract : Op::kAdd, node.type, {a, b.node().operands[0]});
    }
    if (adds && negated(a)) return make(Op::kSubtract, node.type, {b, a.node().operands[0]});
    if (adds || !whole) return {};
    if (same(a, b) && droppable(a)) return 0;
    return is(a, 0.0) ? make(Op::kNegate, node.type, {b}) : Expression();
  }

  Expression product(const Node& node) {
    const Expression &a = node.operands[0], &b = node.operands[1];
    const bool times = node.op == Op::kMultiply, remainder = node.op == Op::kRemainder;
    if (node.type == Type::kInt) {
      if (is(a, 0.0) && droppable(b)) return 0;
      if (is(b, 0.0) && droppable(a)) return 0;  // also what division by zero gives
      if (remainder && (is(b, 1.0) || is(b, -1.0)) && droppable(a)) return 0;
    }
    if (remainder) return {};
    if (is(b, 1.0)) return in_place(a, node.type);
    if (times && is(a, 1.0)) return in_place(b, node.type);
    if (is(b, -1.0) && a.type() == node.type) return make(Op::kNegate, node.type, {a});
    if (times && is(a, -1.0) && b.type() == node.type) return make(Op::kNegate, node.type, {b});
    return {};
  }

  Expression comparison(const Node& node) {
    const Expression &a = node.operands[0], &b = node.operands[1];
    if (!same(a, b) || a.type() == Type::kFloat || !droppable(a)) return {};  // NaN != NaN
    return node.op == Op::kEqual || node.op == Op::kLessEqual || node.op == Op::kGreaterEqual;
  }

  Expression logic(const Node& node) {
    const Expression &a = node.operands[0], &b = node.operands[1];
    const bool neutral = node.op == Op::kAnd;
    if (same(a, b) || is_truth(b, neutral)) return a;
    if (is_truth(a, neutral)) return b;
    const bool decided =
        (is_truth(a, !neutral) && droppable(b)) || (is_truth(b, !neutral) && droppable(a));
    return decided ? Expression(!neutral) : Expression();
  }

  Expression choice(const Node& node) {
    const Expression &condition = node.operands[0], &yes = node.operands[1], &no = node.operands[2];
    if (is_constant(condition)) {
      const bool holds = is_truth(condition, true);
      if (droppable(holds ? no : yes)) return in_place(holds ? yes : no, node.type);
    }
    if (same(yes, no) && droppable(condition)) return in_place(yes, node.type);
    if (is_truth(yes, true) && is_truth(no, false)) return condition;
    if (is_truth(yes, false) && is_truth(no, true)) {
      return make(Op::kNot, Type::kBool, {condition});
    }
    if (condition.node().op != Op::kNot) return {};
    return make(Op::kSelect, node.type, {condition.node().operands[0], no, yes});
  }

  std::unordered_map<const Node*, Expression> done_;
  std::unordered_map<const Node*, bool> droppable_;
  std::unordered_map<Form, Expression, FormHash> nodes_;
};

}  // namespace

Expression simplify(const Expression& expression) { return Simplifier().simplified(expression); }

std::vector<Expression> simplify_together(const std::vector<Expression>& expressions) {
  Simplifier simplifier;
  std::vector<Expression> simplified;
  for (const Expression& expression : expressions) {
    simplified.push_back(simplifier.simplified(expression));
  }
  return simplified;
}

}  // namespace nanoflex::flex
