#pragma once

#include "attention/flex/expression.h"

namespace nanoflex::flex {

/// The score with tensors of one element, which simplify() and derivative() do not look into, in
/// the place of the constants that floats are made of: equal ones in the place of equal ones. So
/// what they make of it does not depend on the constants. Integers and truth values stay as they
/// are, and with them what is known of their ranges.
Expression hide_constants(const Expression& score);

/// Whether it stands for a constant, which its tensor holds.
bool is_hidden_constant(const Node& node);

}  // namespace nanoflex::flex
