#include "attention/flex/remembered.h"

namespace nanoflex::flex {
namespace {

// False where writes are not counted.
bool collect_states(const Expression& expression, std::vector<int64_t>& states) {
  const Node& node = expression.node();
  if (node.tensor.defined()) {
    if (node.tensor.is_inference()) return false;
    states.push_back(2 * node.tensor._version() + (node.tensor.requires_grad() ? 1 : 0));
  }
  return std::all_of(node.operands.begin(), node.operands.end(),
                     [&](const Expression& operand) { return collect_states(operand, states); });
}

}  // namespace

std::optional<std::vector<int64_t>> tensor_states(const std::vector<Expression>& expressions) {
  std::vector<int64_t> states;
  for (const Expression& expression : expressions) {
    if (expression.defined() && !collect_states(expression, states)) return std::nullopt;
  }
  return states;
}

}  // namespace nanoflex::flex
