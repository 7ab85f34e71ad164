#include "attention/flex/expression.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <stdexcept>
#include <unordered_map>
#include <unordered_set>

namespace nanoflex::flex {
namespace {

[[noreturn]] void reject(const std::string& what) {
  throw std::invalid_argument("[expression] " + what);
}

// An expression as a message may quote it: not endless.
std::string quotable(const Expression& expression) {
  constexpr size_t kMaxShown = 120;
  std::string text = to_text(expression);
  if (text.size() > kMaxShown) text.replace(kMaxShown, std::string::npos, "...");
  return text;
}

Type element_type(const at::Tensor& tensor, const std::string& name) {
  if (tensor.scalar_type() == at::kBool) return Type::kBool;
  if (at::isIntegralType(tensor.scalar_type(), /*includeBool=*/false)) return Type::kInt;
  if (at::isFloatingType(tensor.scalar_type())) return Type::kFloat;
  reject("tensor '" + name + "' has dtype " + std::string(c10::toString(tensor.scalar_type())) +
         "; use bool, an integer or a float");
}

Expression leaf(Op op, Type type) { return Expression(Node{.op = op, .type = type}); }

// A captured tensor is a value only once every dimension has its index.
void require_value(const Expression& operand) {
  const Node& node = operand.node();
  if (node.op != Op::kLoad || !node.tensor.defined()) return;
  const auto indices = static_cast<int64_t>(node.operands.size());
  if (indices != node.tensor.dim()) {
    reject("tensor '" + node.name + "' has " + std::to_string(node.tensor.dim()) +
           " dimensions, but is indexed by " + std::to_string(indices));
  }
}

void require(bool fits, const Operator& op, const Expression& operand, const std::string& wanted) {
  if (fits) return;
  reject("'" + op.text + "' needs " + wanted + ", but '" + quotable(operand) + "' is a " +
         type_name(operand.type()));
}

Type promoted(const std::vector<Expression>& operands, size_t first = 0) {
  for (size_t i = first; i < operands.size(); ++i) {
    if (operands[i].type() == Type::kFloat) return Type::kFloat;
  }
  return operands[first].type();
}

Type result_type(const Operator& op, const std::vector<Expression>& operands) {
  const bool logic = op.rule == Rule::kLogic;
  if (op.rule == Rule::kSelect) {
    require(operands[0].type() == Type::kBool, op, operands[0], "a truth value first");
    const bool truth = operands[1].type() == Type::kBool;
    require(truth == (operands[2].type() == Type::kBool), op, operands[2],
            "two values of one kind");
    return promoted(operands, 1);
  }
  for (const Expression& operand : operands) {
    const bool truth = operand.type() == Type::kBool;
    require(truth == logic, op, operand, logic ? "truth values" : "numbers");
  }
  if (logic || op.rule == Rule::kCompare) return Type::kBool;
  if (op.rule == Rule::kReal) return Type::kFloat;
  return op.rule == Rule::kInteger ? Type::kInt : promoted(operands);
}

void check_binding(const Node& load, const at::Tensor& tensor) {
  if (!tensor.defined()) reject("tensor '" + load.name + "' was given undefined");
  const Type type = element_type(tensor, load.name);
  if (type != load.type) {
    reject("tensor '" + load.name + "' must hold elements of type " + type_name(load.type) +
           ", holds " + type_name(type));
  }
  const auto indices = static_cast<int64_t>(load.operands.size());
  if (tensor.dim() != indices) {
    reject("tensor '" + load.name + "' is indexed by " + std::to_string(indices) + " values, has " +
           std::to_string(tensor.dim()) + " dimensions");
  }
}

void collect_free(const Expression& expression, std::unordered_set<const Node*>& seen,
                  std::vector<std::string>& names) {
  const Node& node = expression.node();
  if (!seen.insert(&node).second) return;
  const bool listed = std::find(names.begin(), names.end(), node.name) != names.end();
  if (node.op == Op::kLoad && !node.tensor.defined() && !listed) names.push_back(node.name);
  for (const Expression& operand : node.operands) collect_free(operand, seen, names);
}

void visit_nodes(const Expression& expression, std::unordered_set<const Node*>& seen,
                 const std::function<void(const Expression&)>& visit) {
  if (!seen.insert(&expression.node()).second) return;
  for (const Expression& operand : expression.node().operands) visit_nodes(operand, seen, visit);
  visit(expression);
}

// 0.0 and -0.0 are two: one over them differs.
bool same_constant(const Node& x, const Node& y) {
  if (x.type != Type::kFloat) return x.constant.toLong() == y.constant.toLong();
  const double a = x.constant.toDouble(), b = y.constant.toDouble();
  return a == b && std::signbit(a) == std::signbit(b);
}

bool same_tree(const Expression& a, const Expression& b, bool compare_tensors) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  const Node &x = a.node(), &y = b.node();
  if (&x == &y) return true;
  if (x.op != y.op || x.type != y.type || x.size != y.size || x.name != y.name) return false;
  if (x.op == Op::kConstant && !same_constant(x, y)) return false;
  if (compare_tensors && !x.tensor.is_same(y.tensor)) return false;
  return std::equal(x.operands.begin(), x.operands.end(), y.operands.begin(), y.operands.end(),
                    [&](const auto& p, const auto& q) { return same_tree(p, q, compare_tensors); });
}

}  // namespace

Expression::Expression(Node node) {
  node.depth = node.size = 1;
  for (const Expression& operand : node.operands) {
    node.depth = std::max(node.depth, operand.node().depth + 1);
    node.size += operand.node().size;
  }
  if (node.depth > kMaxDepth || node.size > kMaxSize) {
    reject("the expression is too large: " + std::to_string(node.size) + " operations, " +
           std::to_string(node.depth) + " deep; at most " + std::to_string(kMaxSize) + " and " +
           std::to_string(kMaxDepth));
  }
  node_ = std::make_shared<const Node>(std::move(node));
}

const Node& Expression::node() const {
  if (!node_) reject("an undefined expression was used");
  return *node_;
}

Type Expression::type() const { return node().type; }

Expression Expression::operator[](const Expression& index) const {
  if (node().op != Op::kLoad)
    reject("only a captured tensor has [], not '" + quotable(*this) + "'");
  if (index.type() != Type::kInt) {
    reject("tensor '" + node().name + "' needs integer indices, '" + quotable(index) + "' is a " +
           type_name(index.type()));
  }
  require_value(index);
  Node indexed = node();
  indexed.operands.push_back(index);
  if (indexed.tensor.defined() &&
      static_cast<int64_t>(indexed.operands.size()) > indexed.tensor.dim()) {
    reject("tensor '" + indexed.name + "' has only " + std::to_string(indexed.tensor.dim()) +
           " dimensions, index '" + quotable(index) + "' is one too many");
  }
  return Expression(std::move(indexed));
}

Expression Expression::from_scalar(const at::Scalar& value) {
  if (value.isFloatingPoint() && std::isnan(value.toDouble())) reject("a constant is NaN");
  const Type type = value.isBoolean()         ? Type::kBool
                    : value.isFloatingPoint() ? Type::kFloat
                                              : Type::kInt;
  return Expression(Node{.op = Op::kConstant, .type = type, .constant = value});
}

Captured::Captured(const std::string& name, Type type)
    : Expression(Node{.op = Op::kLoad, .type = type, .name = name}) {}

Captured::Captured(const std::string& name, const at::Tensor& tensor)
    : Expression(Node{
          .op = Op::kLoad, .type = element_type(tensor, name), .name = name, .tensor = tensor}) {}

Expression batch_index() { return leaf(Op::kBatch, Type::kInt); }
Expression head_index() { return leaf(Op::kHead, Type::kInt); }
Expression query_index() { return leaf(Op::kQuery, Type::kInt); }
Expression key_index() { return leaf(Op::kKey, Type::kInt); }
Expression score_value() { return leaf(Op::kScore, Type::kFloat); }

Expression apply(Op op, const std::vector<Expression>& operands) {
  const Operator& which = describe(op);
  if (which.rule == Rule::kLeaf || which.operands != static_cast<int>(operands.size())) {
    throw std::logic_error("'" + which.text + "' applied to " + std::to_string(operands.size()) +
                           " operands");
  }
  for (const Expression& operand : operands) require_value(operand);
  const Type type = result_type(which, operands);
  const Node& last = operands.back().node();
  if (op == Op::kNegate && last.op == Op::kConstant) {
    const at::Scalar& value = last.constant;
    return value.isFloatingPoint()
               ? Expression(-value.toDouble())
               : Expression(static_cast<int64_t>(0 - static_cast<uint64_t>(value.toLong())));
  }
  if (op == Op::kFloor && last.type == Type::kInt) return operands[0];
  if ((op == Op::kDivide || op == Op::kRemainder) && type == Type::kInt &&
      last.op == Op::kConstant && last.constant.toLong() == 0) {
    reject("'" + quotable(operands[0]) + "' is divided by zero");
  }
  return Expression(Node{.op = op, .type = type, .operands = operands});
}

Expression require_mask(const Expression& mask) {
  require_value(mask);
  if (mask.type() != Type::kBool) {
    reject("a mask must be a truth value, '" + quotable(mask) + "' is a " + type_name(mask.type()));
  }
  if (has_operator(mask, Op::kScore)) {
    reject("a mask cannot read the score: '" + quotable(mask) + "'");
  }
  return mask;
}

Expression require_score(const Expression& score) {
  require_value(score);
  if (score.type() == Type::kBool) {
    reject("a score must be a number, '" + quotable(score) + "' is a truth value; use select");
  }
  return score;
}

Expression bind(const Expression& expression, const std::map<std::string, at::Tensor>& tensors) {
  Replaced done;
  const auto tensor_of = [&](const Node& load) {
    const auto found = tensors.find(load.name);
    if (found == tensors.end()) return load.tensor;
    check_binding(load, found->second);
    return found->second;
  };
  return with_tensors(expression, tensor_of, done);
}

Expression with_tensors(const Expression& expression,
                        const std::function<at::Tensor(const Node& load)>& tensor_of,
                        Replaced& done) {
  const Node& node = expression.node();
  if (const auto found = done.find(&node); found != done.end()) return found->second;
  Node copy = node;
  bool changed = false;
  for (Expression& operand : copy.operands) {
    const Expression replaced = with_tensors(operand, tensor_of, done);
    changed |= &replaced.node() != &operand.node();
    operand = replaced;
  }
  if (node.op == Op::kLoad) {
    copy.tensor = tensor_of(node);
    changed |= !copy.tensor.is_same(node.tensor);
  }
  return done[&node] = changed ? Expression(std::move(copy)) : expression;
}

void for_each_node(const Expression& expression,
                   const std::function<void(const Expression&)>& visit) {
  std::unordered_set<const Node*> seen;
  visit_nodes(expression, seen, visit);
}

bool has_operator(const Expression& expression, Op op) {
  bool found = false;
  for_each_node(expression, [&](const Expression& part) { found |= part.node().op == op; });
  return found;
}

std::vector<std::string> free_tensors(const Expression& expression) {
  std::unordered_set<const Node*> seen;
  std::vector<std::string> names;
  collect_free(expression, seen, names);
  return names;
}

std::vector<at::Tensor> tensors_of(const Expression& expression) {
  std::vector<at::Tensor> tensors;
  for_each_node(expression, [&](const Expression& part) {
    const at::Tensor& tensor = part.node().tensor;
    const auto same = [&](const at::Tensor& one) { return one.is_same(tensor); };
    if (tensor.defined() && std::none_of(tensors.begin(), tensors.end(), same)) {
      tensors.push_back(tensor);
    }
  });
  return tensors;
}

std::vector<at::Tensor> watched_tensors_of(const Expression& expression) {
  std::vector<at::Tensor> tensors = tensors_of(expression);
  std::erase_if(tensors, [](const at::Tensor& tensor) { return tensor.is_inference(); });
  return tensors;
}

bool equal(const Expression& a, const Expression& b) { return same_tree(a, b, true); }
bool same_form(const Expression& a, const Expression& b) { return same_tree(a, b, false); }

}  // namespace nanoflex::flex
