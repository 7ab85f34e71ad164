#pragma once

#include "attention/flex/expression.h"

namespace nanoflex::flex {

/// The same value everywhere, from fewer operations: constants folded (as evaluate() computes
/// them), neutral operands and double negations dropped, equal parts shared as one node. Nothing is
/// dropped that could be NaN, infinite or refused: `score * 0.0` stays.
Expression simplify(const Expression& expression);

}  // namespace nanoflex::flex
