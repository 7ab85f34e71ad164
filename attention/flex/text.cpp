// to_text: an expression written the way a user would.
#include <algorithm>
#include <charconv>
#include <optional>

#include "attention/flex/expression.h"
#include "attention/flex/masks.h"
#include "attention/nearest.h"

namespace nanoflex::flex {
namespace {

std::string constant_text(const at::Scalar& value) {
  if (value.isBoolean()) return value.toBool() ? "full" : "!full";
  if (!value.isFloatingPoint()) return std::to_string(value.toLong());
  char buffer[32];
  const auto end = std::to_chars(std::begin(buffer), std::end(buffer), value.toDouble()).ptr;
  std::string text(buffer, end);
  if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
  return text;
}

// Integer constants from left to right; stops when there are more than `most`.
void collect_integers(const Expression& expression, size_t most, std::vector<int64_t>& found) {
  const Node& node = expression.node();
  if (node.op == Op::kConstant && node.type == Type::kInt) found.push_back(node.constant.toLong());
  for (const Expression& operand : node.operands) {
    if (found.size() <= most) collect_integers(operand, most, found);
  }
}

// The name under which a parser would make this very tree: a mask's arguments are its constants.
std::optional<std::string> named(const Expression& expression) {
  constexpr int64_t kLargestNamedMask = 32;
  if (expression.type() != Type::kBool || expression.node().size > kLargestNamedMask) return {};
  for (const NamedMask& mask : named_masks()) {
    std::vector<int64_t> arguments;
    collect_integers(expression, mask.parameters.size(), arguments);
    const bool fits =
        arguments.size() == mask.parameters.size() &&
        std::all_of(arguments.begin(), arguments.end(), [](int64_t n) { return n >= 0; });
    if (!fits || !same_form(expression, mask.make(arguments))) continue;
    std::vector<std::string> texts;
    for (const int64_t n : arguments) texts.push_back(std::to_string(n));
    return texts.empty() ? mask.name : mask.name + "(" + join(texts) + ")";
  }
  return {};
}

struct Text {
  std::string text;
  int binds;
};

Text write(const Expression& expression);

std::string enclose(const Text& operand, int at_least) {
  if (operand.binds >= at_least) return operand.text;
  return std::string("(").append(operand.text).append(")");
}

Text write_load(const Node& node) {
  std::string text = node.name;
  for (const Expression& index : node.operands)
    text.append("[").append(write(index).text).append("]");
  return {text, kTightest};
}

Text write(const Expression& expression) {
  const Node& node = expression.node();
  const Operator& op = describe(node.op);
  if (const auto name = named(expression)) return {*name, kTightest};
  if (node.op == Op::kLoad) return write_load(node);
  if (node.op == Op::kConstant) {
    const std::string text = constant_text(node.constant);
    return {text, text[0] == '-' || text[0] == '!' ? kUnaryBinds : kTightest};
  }
  if (op.operands == 0) return {op.text, kTightest};
  if (op.binds == kUnaryBinds) {
    return {op.text + enclose(write(node.operands[0]), kUnaryBinds), kUnaryBinds};
  }
  if (op.binds < kUnaryBinds) {  // they group from the left
    const std::string left = enclose(write(node.operands[0]), op.binds);
    const std::string right = enclose(write(node.operands[1]), op.binds + 1);
    return {left + " " + op.text + " " + right, op.binds};
  }
  std::vector<std::string> operands;
  for (const Expression& operand : node.operands) operands.push_back(write(operand).text);
  return {op.text + "(" + join(operands) + ")", kTightest};
}

}  // namespace

std::string to_text(const Expression& expression) {
  return expression.defined() ? write(expression).text : "";
}

}  // namespace nanoflex::flex
