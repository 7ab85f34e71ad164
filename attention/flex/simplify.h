#pragma once

#include <vector>

#include "attention/flex/expression.h"

namespace nanoflex::flex {

/// The same value everywhere, from fewer operations: constants folded (as evaluate() computes
/// them in fp64), neutral operands and double negations dropped, equal parts shared as one node.
/// Nothing is dropped that could be NaN, infinite or refused: `score * 0.0` and, because -0.0
/// would change, `score + 0.0` stay, and so does every read of a tensor.
Expression simplify(const Expression& expression);

/// The same for several expressions, whose equal parts are then shared among all of them.
std::vector<Expression> simplify_together(const std::vector<Expression>& expressions);

}  // namespace nanoflex::flex
