// The arithmetics that the tile kernels are written over: how many lanes, which register block,
// what an element of a product is, and its dot product.
#pragma once

#include "attention/cpu/vectors.h"

namespace nanoflex::cpu {
namespace {

/// fp32, one number an element; kRows x kVectors accumulators fit the registers.
template <int lanes, int rows, int vectors>
struct Float32Math {
  using Element = float;
  static constexpr int kLanes = lanes, kRows = rows, kVectors = vectors;
  static constexpr int kPair = 1;  ///< neighbours along k that an element holds
  static constexpr int kUnit = 1;  ///< rows and steps of products come in multiples of it
  struct Session {};               ///< lives while a unit runs
  using F = typename Vectors<lanes>::F;
  static F dot(F sum, F a, F b) { return sum + a * b; }
};

using PortableMath = Float32Math<4, 6, 2>;
using Avx2Math = Float32Math<8, 6, 2>;
using Avx512Math = Float32Math<16, 12, 2>;

/// Pairs of bfloat16 with fp32 sums, on 16 lanes. `Dot` is the instruction, or PlainDot.
template <typename Dot>
struct BFloat16Math {
  using Element = uint32_t;
  static constexpr int kLanes = 16, kRows = 12, kVectors = 2;
  static constexpr int kPair = 2, kUnit = 1;
  struct Session {};
  using F = Vectors<16>::F;
  using U = Vectors<16>::U;
  static F dot(F sum, U a, U b) { return Dot::dot(sum, a, b); }
};

/// AVX-512-BF16's VDPBF16PS, written out.
struct PlainDot {
  using F = Vectors<16>::F;
  using U = Vectors<16>::U;
  static F dot(F sum, U a, U b) {
    const F low = reinterpret_cast<F>(a << 16) * reinterpret_cast<F>(b << 16);
    const F high = reinterpret_cast<F>(a & 0xffff0000u) * reinterpret_cast<F>(b & 0xffff0000u);
    return sum + high + low;
  }
};

}  // namespace
}  // namespace nanoflex::cpu
