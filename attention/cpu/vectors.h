// Vectors of kLanes floats, whatever the instruction set: the compiler's own vector types, which it
// lowers to the registers that the including file is compiled for. Everything in these headers has
// internal linkage, so that code for one instruction set never serves another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace nanoflex::cpu {
namespace {

constexpr float kInfinity = __builtin_inff();
constexpr float kLog2E = 1.4426950408889634f;

template <int kLanes>
struct VectorTypes {
  typedef float F __attribute__((vector_size(4 * kLanes)));
  typedef int32_t I __attribute__((vector_size(4 * kLanes)));
  typedef uint32_t U __attribute__((vector_size(4 * kLanes)));
  typedef uint16_t Half __attribute__((vector_size(2 * kLanes)));
  // As they lie in memory, at any address.
  typedef float LooseF __attribute__((vector_size(4 * kLanes), aligned(2), may_alias));
  typedef uint32_t LooseU __attribute__((vector_size(4 * kLanes), aligned(2), may_alias));
  typedef uint16_t LooseHalf __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));
};

template <int kLanes>
struct Vectors {
  using F = typename VectorTypes<kLanes>::F;
  using I = typename VectorTypes<kLanes>::I;
  using U = typename VectorTypes<kLanes>::U;
  using Half = typename VectorTypes<kLanes>::Half;
  using LooseF = typename VectorTypes<kLanes>::LooseF;
  using LooseU = typename VectorTypes<kLanes>::LooseU;
  using LooseHalf = typename VectorTypes<kLanes>::LooseHalf;

  static F load(const float* p) { return *reinterpret_cast<const LooseF*>(p); }
  static U load(const uint32_t* p) { return *reinterpret_cast<const LooseU*>(p); }
  static Half load(const uint16_t* p) { return *reinterpret_cast<const LooseHalf*>(p); }
  static void store(float* p, F x) { *reinterpret_cast<LooseF*>(p) = x; }
  static void store(uint32_t* p, U x) { *reinterpret_cast<LooseU*>(p) = x; }
  static void store(uint16_t* p, Half x) { *reinterpret_cast<LooseHalf*>(p) = x; }

  static F broadcast(float x) { return x - F{}; }  // - 0 changes nothing, + 0 would -0
  static U broadcast(uint32_t x) { return U{} + x; }
  static I broadcast(int32_t x) { return I{} + x; }
  static F max(F a, F b) { return a > b ? a : b; }

  /// `yes` where the truth value holds, else `no`.
  static F where(F truth, F yes, float no) {
    return reinterpret_cast<I>(truth) != 0 ? yes : broadcast(no);
  }

  static I iota() {
    I result{};
    for (int lane = 0; lane < kLanes; ++lane) result[lane] = lane;
    return result;
  }

  static bool any(I condition) {
    int32_t found = 0;
    for (int lane = 0; lane < kLanes; ++lane) found |= condition[lane];
    return found != 0;
  }

  /// 2^x by a polynomial on [-1/2, 1/2] (minimax, relative error 2e-9) and the exponent's bits; 0
  /// below 2^-126, so that 2^-inf is exactly 0. NaN stays NaN. REQUIRES: x < 128.
  static F exp2(F x) {
    constexpr float kMagic = 12582912;  // 1.5 * 2^23: adding it rounds to an integer
    x = x < -127.0f ? broadcast(-127.0f) : x;
    const F shifted = x + kMagic;
    const F r = x - (shifted - kMagic);
    F y = r * 1.5345820547504841e-4f + 1.339993125776851e-3f;
    y = y * r + 9.61848892349624e-3f;
    y = y * r + 5.550328776878e-2f;
    y = y * r + 2.4022646890963e-1f;
    y = y * r + 6.931472057373325e-1f;
    y = y * r + 1.0f;
    const I exponent = (reinterpret_cast<I>(shifted) << 23) + (127 << 23);
    return y * reinterpret_cast<F>(exponent);
  }

  /// Lane i of rows[j] and lane j of rows[i] change places.
  static void transpose(F (&rows)[kLanes]) { transpose<1>(rows); }

  /// The bits of x rounded to bfloat16 (to nearest, ties to even), in the upper half of each lane.
  static U rounded_to_bfloat16(F x) {
    const U bits = reinterpret_cast<U>(x);
    return (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
  }
  /// Two rows as bfloat16, element by element: `first` in the lower half of each lane.
  static U pair(F first, F second) {
    return (rounded_to_bfloat16(first) >> 16) | rounded_to_bfloat16(second);
  }
  static F widen(Half x) { return reinterpret_cast<F>(__builtin_convertvector(x, U) << 16); }
  static Half narrow(F x) { return __builtin_convertvector(rounded_to_bfloat16(x) >> 16, Half); }

 private:
  // Swaps the off-diagonal quarters of each square of 2 kHalf rows and lanes.
  template <int kHalf>
  static void transpose(F (&rows)[kLanes]) {
    if constexpr (kHalf < kLanes) {
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        if (i & kHalf) continue;
        const F a = rows[i], b = rows[i + kHalf];
        rows[i] = mix<kHalf, 0>(a, b, std::make_integer_sequence<int, kLanes>());
        rows[i + kHalf] = mix<kHalf, kHalf>(a, b, std::make_integer_sequence<int, kLanes>());
      }
      transpose<2 * kHalf>(rows);
    }
  }

  // Lanes of a (where kHalf's bit is clear) and of b, from the half that begins at kFrom.
  template <int kHalf, int kFrom, int... kLane>
  static F mix(F a, F b, std::integer_sequence<int, kLane...>) {
    return __builtin_shufflevector(a, b,
                                   (((kLane & kHalf) ? kLanes + kLane - kHalf : kLane) + kFrom)...);
  }
};

// Single elements, at any address and whatever their bytes were stored as.
typedef float LooseFloat __attribute__((aligned(2), may_alias));
typedef uint32_t LooseBits __attribute__((aligned(2), may_alias));
inline float element(const float* p) { return *reinterpret_cast<const LooseFloat*>(p); }
inline uint32_t element(const uint32_t* p) { return *reinterpret_cast<const LooseBits*>(p); }

inline float widen(uint16_t x) { return __builtin_bit_cast(float, static_cast<uint32_t>(x) << 16); }

inline uint16_t narrow(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

template <typename T>
T smaller(T a, T b) {
  return a < b ? a : b;
}
template <typename T>
T larger(T a, T b) {
  return a > b ? a : b;
}

}  // namespace
}  // namespace nanoflex::cpu
