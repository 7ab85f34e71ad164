#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attention/flex/expression.h"
#include "attention/flex/named.h"

namespace nanoflex::flex {

/// A query sees itself and what stands before it: q >= kv.
Expression causal();
/// Every query sees every key.
Expression full();
/// A query sees at most n >= 0 keys back, and all that follow: q - kv <= n (FlashAttention's left
/// window; combine it with causal).
Expression window(int64_t n);
/// Causal, but the first n >= 0 keys are seen by all queries: causal | kv < n.
Expression prefix(int64_t n);
/// A query sees its own document: document[b][q] == document[b][kv], over the captured integer
/// tensor "document", [B, S], of document numbers.
Expression document();
/// A query sees every n-th key, counted from itself, n >= 1: (q - kv) % n == 0.
Expression dilated(int64_t n);
/// Over blocks of n >= 1 queries and keys: those at most `local` >= 0 blocks away, and every
/// `every`-th >= 1 block of keys: abs(q / n - kv / n) <= local | kv / n % every == 0
/// (after Child et al., "Generating Long Sequences with Sparse Transformers", arXiv:1904.10509).
Expression block_sparse(int64_t n, int64_t local, int64_t every);

// The functions above throw std::invalid_argument when an argument is too small.

/// The one table of named masks: a new mask is a new row.
const std::vector<Named>& named_masks();

/// Their signatures: causal, full, window(n), ...
std::vector<std::string> mask_names();

}  // namespace nanoflex::flex
