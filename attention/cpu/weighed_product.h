// Products that keep what a row does not see away from it. Its weight is 0, but 0 times infinity or
// NaN is NaN, so the fast product spoils rows that only share a tile with such values. Where a
// result is not finite, it is computed again by this one, which leaves the other rows' bits as the
// fast one makes them.
#pragma once

#include "attention/cpu/gemm.h"

namespace nanoflex::cpu {
namespace {

/// Which factor of a product holds the weights.
enum class Weighs : uint8_t { kLeft, kRight };

// The same sums, one vector at a time, of values that are 0 where their weight is. Of pairs, only
// what is not finite is summed.
template <typename Math, Weighs kWeights>
struct WeighedMath {
  using Element = typename Math::Element;
  static constexpr int kLanes = Math::kLanes, kRows = 4, kVectors = 1;
  static constexpr int kPair = Math::kPair, kUnit = 1;
  using V = Vectors<kLanes>;
  using F = typename V::F;

  template <typename Number>
  static F dot(F sum, Number a, Number b) {
    if constexpr (kPair == 1) {
      return add(sum, a, b);
    } else {
      const auto number = [](auto bits) { return reinterpret_cast<F>(bits); };
      sum = add(sum, number(a << 16), number(b << 16));
      return add(sum, number(a & 0xffff0000u), number(b & 0xffff0000u));
    }
  }

 private:
  static F add(F sum, F a, F b) {
    const F weight = kWeights == Weighs::kLeft ? a : b, value = kWeights == Weighs::kLeft ? b : a;
    const auto counts = kPair == 1 ? weight != 0.0f : (weight != 0.0f) & (value - value != 0.0f);
    return sum + weight * (counts ? value : F{});
  }
};

/// Zeros for what is not finite, in pairs of bfloat16.
inline void clear_odd(uint32_t* pairs, int64_t count) {
  constexpr uint32_t kLow = 0x00007f80, kHigh = 0x7f800000;
  for (int64_t i = 0; i < count; ++i) {
    if ((pairs[i] & kLow) == kLow) pairs[i] &= 0xffff0000u;
    if ((pairs[i] & kHigh) == kHigh) pairs[i] &= 0x0000ffffu;
  }
}

/// multiply(), but for the products with zero weights, which are left out. The factor without
/// weights lies in `values`, `count` elements, where those are pairs; lay() lays it out anew, as it
/// stays without what is not finite.
template <typename Math, Weighs kWeights, typename Lay>
[[gnu::cold, gnu::noinline]] void multiply_weighed(int M, int N, int K,
                                                   Operand<typename Math::Element> a,
                                                   Columns<const typename Math::Element> b,
                                                   Columns<float> c, bool accumulate,
                                                   typename Math::Element* values, int64_t count,
                                                   const Lay& lay) {
  if constexpr (Math::kPair == 2) lay();
  // Steps that lie side by side in `a`.
  const int neighbours = Math::kUnit == 1 ? K : Math::kUnit;
  const ptrdiff_t step = Math::kUnit == 1 ? a.step : 1;
  for (int k = 0; k < K; k += neighbours) {
    multiply<WeighedMath<Math, kWeights>>(M, N, neighbours, {a.data + k * a.step, a.row, step},
                                          b.from(k), c, accumulate || k > 0);
  }
  if constexpr (Math::kPair == 2) {
    clear_odd(values, count);
    multiply<Math>(M, N, K, a, b, c, true);
  }
}

}  // namespace
}  // namespace nanoflex::cpu
