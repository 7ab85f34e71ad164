#pragma once

#include "attention/cpu/problem.h"

namespace nanoflex::cpu {
namespace {

/// Writes what a row's softmax divides by (see Problem) from its largest score, the sum and its
/// logarithm to base 2; a row that sees nothing has sum 0.
inline void put_denominator(const Problem& p, int64_t at, float maximum, float sum,
                            double log2_sum) {
  constexpr double kLn2 = 0.6931471805599453;
  const bool blind = sum == 0;
  p.logsumexp[at] =
      blind ? -__builtin_inff()
            : static_cast<float>(static_cast<double>(maximum) * p.softmax_scale + log2_sum * kLn2);
  p.denominator[at] = blind ? 0 : maximum;
  p.denominator[p.B * p.H * p.T + at] = blind ? 0 : static_cast<float>(log2_sum);
}

}  // namespace
}  // namespace nanoflex::cpu
