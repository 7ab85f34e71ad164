#pragma once

#include <string>

#include "attention/flex/expression.h"
#include "attention/flex/masks.h"

namespace nanoflex::flex {

/// A mask from text: named masks (masks.h) joined by `&` and `|`, negated by `!`, with parentheses;
/// `!` binds tightest, then `&`, then `|`. Example: "causal & (window(256) | !document)".
/// Throws std::invalid_argument, with the column and the nearest known name, when it cannot be
/// read. Texts of more than 4096 characters and nesting beyond 64 are refused.
Expression parse_mask(const std::string& text);

}  // namespace nanoflex::flex
