#pragma once

#include <ATen/Functions.h>

#include <map>
#include <string>
#include <vector>

#include "attention/flex/expression.h"

namespace nanoflex::flex {

/// What a named mask or score is made with: an integer or a number, finite and not below `least`.
struct Parameter {
  std::string name;
  Type type = Type::kInt;  ///< kInt, or kFloat, which integers fit too
  double least = 0;
  bool above = false;  ///< `least` itself is too small

  std::string wanted() const;  ///< "an integer n of at least 0"
  bool allows(const at::Scalar& argument) const;
};

using Arguments = std::vector<at::Scalar>;

/// An expression that text can name. `window(8)` in text is `window(8)` in C++ and the same tree.
struct Named {
  std::string name;
  std::vector<Parameter> parameters;
  Expression (*make)(const Arguments& arguments);  ///< one for each parameter, of its type

  std::string signature() const;  ///< "window(n)"
};

const Named* find_named(const std::vector<Named>& table, const std::string& name);
std::vector<std::string> signatures(const std::vector<Named>& table);

/// Throws std::invalid_argument when the row called `name` does not allow one of the arguments.
void check_arguments(const std::vector<Named>& table, const std::string& name,
                     const Arguments& arguments);

/// Valid arguments, different from one another and from the constants that masks are made of.
Arguments sample_arguments(const Named& named);

/// The captured tensors that named masks and scores read, by name, and what their elements are.
const std::map<std::string, Type>& standard_tensors();

}  // namespace nanoflex::flex
