#pragma once

#include <ATen/Functions.h>

#include <cstdint>
#include <string>
#include <vector>

#include "attention/flex/expression.h"
#include "attention/flex/named.h"

namespace nanoflex::flex {

/// Attention with linear biases: score + alibi_slopes[h] * (kv - q), over the captured float tensor
/// "alibi_slopes", [H] (Press et al., "Train Short, Test Long", arXiv:2108.12409).
Expression alibi();
/// Keeps scores between -x and x, x > 0: x * tanh(score / x) (Gemma 2, arXiv:2408.00118).
Expression softcap(double x);
/// A learned number for each head and distance, distances of n >= 1 and more sharing one:
/// score + relative_bias[h][min(max(q - kv, 1 - n), n - 1) + n - 1], over the captured float tensor
/// "relative_bias", [H, 2 n - 1] (after Shaw et al., arXiv:1803.02155, and T5, arXiv:1910.10683).
Expression relative_bias(int64_t n);

// softcap and relative_bias throw std::invalid_argument when the argument is too small.

/// [heads] fp32: 2^(-8 (i + 1) / heads) for a power of two; else, as in the paper, those of the
/// power of two below and then every other one of those of the power above. Throws
/// std::invalid_argument for less than one head.
at::Tensor alibi_slopes(int64_t heads);

/// The one table of named scores: a new score is a new row.
const std::vector<Named>& named_scores();

/// Their signatures: alibi, softcap(x), ...
std::vector<std::string> score_names();

}  // namespace nanoflex::flex
