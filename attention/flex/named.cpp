#include "attention/flex/named.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <stdexcept>

#include "attention/flex/masks.h"
#include "attention/flex/scores.h"
#include "attention/nearest.h"

namespace nanoflex::flex {
namespace {

std::string number_text(double value) {
  char buffer[32];
  return {buffer, std::to_chars(std::begin(buffer), std::end(buffer), value).ptr};
}

}  // namespace

std::string Parameter::wanted() const {
  return (type == Type::kInt ? "an integer " : "a number ") + name +
         (above ? " above " : " of at least ") + number_text(least);
}

bool Parameter::allows(const at::Scalar& argument) const {
  if (argument.isBoolean() || (type == Type::kInt && argument.isFloatingPoint())) return false;
  const double value = argument.toDouble();
  return std::isfinite(value) && (above ? value > least : value >= least);
}

std::string Named::signature() const {
  std::vector<std::string> names;
  for (const Parameter& parameter : parameters) names.push_back(parameter.name);
  return names.empty() ? name : name + "(" + join(names) + ")";
}

const Named* find_named(const std::vector<Named>& table, const std::string& name) {
  const auto found = std::find_if(table.begin(), table.end(),
                                  [&](const Named& named) { return named.name == name; });
  return found == table.end() ? nullptr : &*found;
}

std::vector<std::string> signatures(const std::vector<Named>& table) {
  std::vector<std::string> all;
  for (const Named& named : table) all.push_back(named.signature());
  return all;
}

void check_arguments(const std::vector<Named>& table, const std::string& name,
                     const Arguments& arguments) {
  const Named* named = find_named(table, name);
  if (named == nullptr || named->parameters.size() != arguments.size()) {
    throw std::logic_error("no row of the table is like " + name);
  }
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (named->parameters[i].allows(arguments[i])) continue;
    throw std::invalid_argument("[flex] " + named->signature() + " needs " +
                                named->parameters[i].wanted() + ", is " +
                                number_text(arguments[i].toDouble()));
  }
}

Arguments sample_arguments(const Named& named) {
  Arguments samples;
  int64_t next = 1'000'003;
  for (const Parameter& parameter : named.parameters) {
    if (parameter.type == Type::kInt) {
      samples.emplace_back(next);
    } else {
      samples.emplace_back(static_cast<double>(next));
    }
    next += 1000;
  }
  return samples;
}

const std::map<std::string, Type>& standard_tensors() {
  static const std::map<std::string, Type> tensors = [] {
    std::map<std::string, Type> found;
    for (const std::vector<Named>* table : {&named_masks(), &named_scores()}) {
      for (const Named& named : *table) {
        for_each_node(named.make(sample_arguments(named)), [&](const Expression& part) {
          if (part.node().op == Op::kLoad) found[part.node().name] = part.type();
        });
      }
    }
    return found;
  }();
  return tensors;
}

}  // namespace nanoflex::flex
