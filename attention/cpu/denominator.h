#pragma once

#include "attention/cpu/elementary.h"
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

/// The same of `count` rows next to each other, at most a vector's.
template <int kLanes>
void put_denominators(const Problem& p, int64_t at, int64_t count,
                      typename Vectors<kLanes>::F maximum, typename Vectors<kLanes>::F sum) {
  using V = Vectors<kLanes>;
  using F = typename V::F;
  using D = typename Elementary<kLanes>::D;
  constexpr double kLn2 = 0.6931471805599453;
  const D log2_sum = Elementary<kLanes>::log2(sum);
  const D logsumexp =
      __builtin_convertvector(maximum, D) * double{p.softmax_scale} + log2_sum * kLn2;
  const auto unless_blind = [&](F value, float otherwise) {
    return sum == 0.0f ? V::broadcast(otherwise) : value;
  };
  const F values[] = {unless_blind(__builtin_convertvector(logsumexp, F), -kInfinity),
                      unless_blind(maximum, 0),
                      unless_blind(__builtin_convertvector(log2_sum, F), 0)};
  float* const to[] = {p.logsumexp + at, p.denominator + at, p.denominator + p.B * p.H * p.T + at};
  for (int i = 0; i < 3; ++i) {
    if (count >= kLanes) {
      V::store(to[i], values[i]);
    } else {
      for (int64_t lane = 0; lane < count; ++lane) to[i][lane] = values[i][lane];
    }
  }
}

}  // namespace
}  // namespace nanoflex::cpu
