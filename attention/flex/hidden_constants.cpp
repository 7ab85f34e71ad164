#include "attention/flex/hidden_constants.h"

#include <bit>
#include <unordered_map>

namespace nanoflex::flex {
namespace {

constexpr char kHidden[] = "";  // a name that text cannot say

class HiddenConstants {
 public:
  Expression hidden(const Expression& expression) {
    const Node& node = expression.node();
    if (node.type != Type::kFloat) return expression;
    if (const auto found = done_.find(&node); found != done_.end()) return found->second;
    if (node.op == Op::kConstant) return one(node);
    Node changed = node;
    for (Expression& operand : changed.operands) {
      const Node& part = operand.node();
      const bool beside_floats =
          part.op == Op::kConstant && part.type == Type::kInt && node.op != Op::kLoad;
      operand = beside_floats ? one(part) : hidden(operand);
    }
    return done_[&node] = Expression(std::move(changed));
  }

 private:
  Expression one(const Node& constant) {
    const double value = constant.constant.toDouble();
    Expression& known = known_[std::bit_cast<int64_t>(value)];
    if (known.defined()) return known;
    return known = Expression(Node{.op = Op::kLoad,
                                   .type = Type::kFloat,
                                   .name = kHidden,
                                   .tensor = at::scalar_tensor(value, at::kDouble)});
  }

  std::unordered_map<const Node*, Expression> done_;
  std::unordered_map<int64_t, Expression> known_;
};

}  // namespace

Expression hide_constants(const Expression& score) { return HiddenConstants().hidden(score); }

bool is_hidden_constant(const Node& node) {
  return node.op == Op::kLoad && node.name == kHidden && node.operands.empty();
}

}  // namespace nanoflex::flex
