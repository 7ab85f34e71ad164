#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "attention/flex/named.h"
#include "attention/flex/operators.h"

namespace nanoflex::flex {

/// What names mean in the text of a mask or a score.
class Names {
 public:
  /// `tensors` come beside the standard ones. Throws std::invalid_argument, which begins with
  /// "[area]", when one of them has the name of something else.
  Names(const std::string& area, bool in_score, const std::map<std::string, Type>& tensors);

  const Operator* index(const std::string& name) const;     ///< b, h, q, kv, score
  const Operator* function(const std::string& name) const;  ///< min, select ...
  const Named* mask(const std::string& name) const;
  const Named* score(const std::string& name) const;
  std::optional<Expression> constant(const std::string& name) const;  ///< true, false, inf
  std::optional<Type> tensor(const std::string& name) const;

  /// What to write instead of a name that means nothing here, or nothing where it stands.
  std::string advice(const std::string& name) const;
  std::string tensor_advice(const std::string& name) const;
  std::string known() const;  ///< "known: causal, full, ..."

 private:
  bool is_builtin(const std::string& name) const;

  const bool in_score_;
  std::map<std::string, Type> tensors_;
};

/// "select(condition, yes, no)".
std::string usage(const Operator& function);

}  // namespace nanoflex::flex
