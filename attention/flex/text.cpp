// to_text: an expression written the way a user would.
#include <algorithm>
#include <charconv>
#include <optional>

#include "attention/flex/expression.h"
#include "attention/flex/masks.h"
#include "attention/flex/scores.h"
#include "attention/nearest.h"

namespace nanoflex::flex {
namespace {

std::string float_text(double value) {
  char buffer[32];
  const auto end = std::to_chars(std::begin(buffer), std::end(buffer), value).ptr;
  std::string text(buffer, end);
  if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
  return text;
}

std::string constant_text(const at::Scalar& value) {
  if (value.isBoolean()) return value.toBool() ? "full" : "false";
  return value.isFloatingPoint() ? float_text(value.toDouble()) : std::to_string(value.toLong());
}

// Numbers that stand in an expression, from left to right.
void collect_numbers(const Expression& expression, std::vector<at::Scalar>& found) {
  const Node& node = expression.node();
  if (node.op == Op::kConstant && node.type != Type::kBool) found.push_back(node.constant);
  for (const Expression& operand : node.operands) collect_numbers(operand, found);
}

std::vector<at::Scalar> numbers(const Expression& expression) {
  std::vector<at::Scalar> found;
  collect_numbers(expression, found);
  return found;
}

bool is_same(const at::Scalar& a, const at::Scalar& b) {
  return a.isFloatingPoint() == b.isFloatingPoint() && a.toDouble() == b.toDouble();
}

// A row of the tables, made once, and which of its numbers each argument is.
struct Sample {
  const Named* named;
  Expression expression;
  std::vector<size_t> places;
};

const std::vector<Sample>& samples() {
  static const std::vector<Sample> all = [] {
    std::vector<Sample> made;
    for (const std::vector<Named>* table : {&named_masks(), &named_scores()}) {
      for (const Named& named : *table) {
        const Arguments arguments = sample_arguments(named);
        Sample sample = {&named, named.make(arguments), {}};
        const std::vector<at::Scalar> found = numbers(sample.expression);
        for (const at::Scalar& argument : arguments) {
          const auto place =
              std::find_if(found.begin(), found.end(),
                           [&](const at::Scalar& number) { return is_same(number, argument); });
          sample.places.push_back(place - found.begin());
        }
        made.push_back(std::move(sample));
      }
    }
    return made;
  }();
  return all;
}

// What makes the sample into this expression, if anything does.
std::optional<Arguments> arguments_of(const Expression& expression, const Sample& sample) {
  const Node &node = expression.node(), &like = sample.expression.node();
  if (node.op != like.op || node.type != like.type || node.size != like.size) return {};
  const std::vector<at::Scalar> found = numbers(expression);
  Arguments arguments;
  for (size_t i = 0; i < sample.places.size(); ++i) {
    const Parameter& parameter = sample.named->parameters[i];
    if (sample.places[i] >= found.size()) return {};
    const at::Scalar& number = found[sample.places[i]];
    const bool fits = number.isFloatingPoint() == (parameter.type == Type::kFloat);
    if (!fits || !parameter.allows(number)) return {};
    arguments.push_back(number);
  }
  if (!same_form(expression, sample.named->make(arguments))) return {};
  return arguments;
}

// The name under which a parser would make this very tree.
std::optional<std::string> named(const Expression& expression) {
  for (const Sample& sample : samples()) {
    const std::optional<Arguments> arguments = arguments_of(expression, sample);
    if (!arguments) continue;
    std::vector<std::string> texts;
    for (const at::Scalar& argument : *arguments) texts.push_back(constant_text(argument));
    return texts.empty() ? sample.named->name : sample.named->name + "(" + join(texts) + ")";
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
    return {text, text[0] == '-' ? kUnaryBinds : kTightest};
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
