#pragma once

#include <map>
#include <string>

#include "attention/flex/expression.h"

namespace nanoflex::flex {

/// What a text may read beside what every text may.
struct Vocabulary {
  /// Captured tensors by name and what their elements are, beside those that named masks and scores
  /// read. Parsing leaves all of them unbound.
  std::map<std::string, Type> tensors = {};
};

/// The names of these tensors, as what they hold.
Vocabulary vocabulary_of(const std::map<std::string, at::Tensor>& tensors);

/// A mask from text, which means what the same text means in C++:
///
///   causal & (window(256) | kv < 4)     document[b][q] == document[b][kv] | kv % 64 == 0
///
/// Named masks (masks.h); the indices b, h, q, kv; integers, numbers, true, false, inf; tensors
/// with an index for each dimension; `| & !`, comparisons, `+ - * / %`, binding as operators.h
/// says; the functions there; parentheses. Comparisons do not chain.
///
/// Throws std::invalid_argument when it cannot be read: a line that says what is wrong, at which
/// column, and how to mend it (with the nearest known name), then the text with a caret under the
/// place. Texts of more than 4096 characters, nesting beyond 64 and what exceeds an expression's
/// bounds are refused, so any input ends soon.
Expression parse_mask(const std::string& text, const Vocabulary& vocabulary = {});

/// A score from text, likewise; also `score`, the scaled score, and named scores (scores.h):
/// "softcap(30)", "score + slopes[h] * (kv - q)", "select(causal, score, -inf)".
Expression parse_score(const std::string& text, const Vocabulary& vocabulary = {});

}  // namespace nanoflex::flex
