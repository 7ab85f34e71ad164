#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attention/flex/expression.h"

namespace nanoflex::flex {

/// A query sees itself and what stands before it: q >= kv.
Expression causal();
/// Every query sees every key.
Expression full();
/// A query sees at most n keys back, and all that follow: q - kv <= n (FlashAttention's left
/// window; combine it with causal). Throws std::invalid_argument when n is negative.
Expression window(int64_t n);
/// A query sees its own document: document[b][q] == document[b][kv], over the captured integer
/// tensor "document", [B, S], of document numbers.
Expression document();

/// A mask that text can name.
struct NamedMask {
  std::string name;
  std::vector<std::string> parameters;  ///< non-negative integers
  std::string help;
  Expression (*make)(const std::vector<int64_t>& arguments);  ///< one for each parameter

  std::string signature() const;  ///< "window(n)"
};

/// The one table of named masks: a new mask is a new row.
const std::vector<NamedMask>& named_masks();

/// Their signatures: causal, full, window(n), document.
std::vector<std::string> mask_names();

}  // namespace nanoflex::flex
