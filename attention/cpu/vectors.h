// Vectors of kLanes floats, whatever the instruction set: the compiler's own vector types, which it
// lowers to the registers that the including file is compiled for. Everything in these headers has
// internal linkage, so that code for one instruction set never serves another.
#pragma once

#ifdef __AVX512F__
#include <immintrin.h>
#endif

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
  typedef uint16_t Words __attribute__((vector_size(4 * kLanes)));
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
#ifdef __AVX512F__
    if constexpr (kLanes == 16) {
      const auto bits = reinterpret_cast<__m512i>(condition);
      return _mm512_test_epi32_mask(bits, bits) != 0;
    }
#endif
    int32_t found = 0;
    for (int lane = 0; lane < kLanes; ++lane) found |= condition[lane];
    return found != 0;
  }

  /// The least of all lanes.
  template <int kHalf = kLanes / 2>
  static int32_t lowest(I x) {
    if constexpr (kHalf == 0) {
      return x[0];
    } else {
      const I other = rotated<kHalf>(x, std::make_integer_sequence<int, kLanes>());
      return lowest<kHalf / 2>(x < other ? x : other);
    }
  }

  /// 2^x by a polynomial on [0, 1) and the exponent's bits; 0 below 2^-126, so that 2^-inf is
  /// exactly 0, and 2^0 is exactly 1. NaN stays NaN. Relative error 2e-9 before rounding to fp32,
  /// or 3e-6 where `kShort`, for what is rounded to bf16 afterwards. REQUIRES: x < 128.
  template <bool kShort = false>
  static F exp2(F x) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    if constexpr (kLanes == 16) {  // x - floor(x), which is 0 for -inf, and y 2^floor(x)
      const auto wide = reinterpret_cast<__m512>(x);
      const F y = exp2_fraction<kShort>(reinterpret_cast<F>(_mm512_reduce_ps(wide, 0x09)));
      // Numbers too small to be normal would take 30 times as long.
      const auto normal = _mm512_cmp_ps_mask(wide, _mm512_set1_ps(-126), _CMP_NLT_UQ);
      return reinterpret_cast<F>(_mm512_maskz_scalef_ps(normal, reinterpret_cast<__m512>(y), wide));
    }
#endif
    constexpr float kMagic = 12582912;  // 1.5 * 2^23: adding it rounds to an integer
    x = x < -126.5f ? broadcast(-126.5f) : x;
    const F shifted = (x - 0.5f) + kMagic;
    const F y = exp2_fraction<kShort>(x - (shifted - kMagic));
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
#ifdef __AVX512BF16__
    if constexpr (kLanes == 16) {
      const auto both = reinterpret_cast<Words>(
          _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(second), reinterpret_cast<__m512>(first)));
      return reinterpret_cast<U>(__builtin_shufflevector(
          both, both, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26,
          11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
    }
#endif
    return (rounded_to_bfloat16(first) >> 16) | rounded_to_bfloat16(second);
  }
  static U bits(Half x) {
#ifdef __AVX512F__
    if constexpr (kLanes == 16) {
      return reinterpret_cast<U>(_mm512_maskz_cvtepu16_epi32(0xffff, reinterpret_cast<__m256i>(x)));
    }
#endif
    return __builtin_convertvector(x, U);
  }
  static F widen(Half x) { return reinterpret_cast<F>(bits(x) << 16); }
  static Half narrow(F x) {
#ifdef __AVX512BF16__
    if constexpr (kLanes == 16) {
      return reinterpret_cast<Half>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(x)));
    }
#endif
    return __builtin_convertvector(rounded_to_bfloat16(x) >> 16, Half);
  }

 private:
  using Words = typename VectorTypes<kLanes>::Words;

  // 2^x on [0, 1]: 1 + x q(x), our own fit of least relative error.
  template <bool kShort>
  static F exp2_fraction(F x) {
    if constexpr (kShort) {
      F y = x * 1.34266844e-2f + 5.2242474e-2f;
      y = y * x + 2.41280205e-1f;
      y = y * x + 6.93044845e-1f;
      return y * x + 1.0f;
    }
    F y = x * 2.1612915e-4f + 1.24678464e-3f;
    y = y * x + 9.67545157e-3f;
    y = y * x + 5.54852806e-2f;
    y = y * x + 2.40229306e-1f;
    y = y * x + 6.93147044e-1f;
    return y * x + 1.0f;
  }

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

  template <int kBy, int... kLane>
  static I rotated(I x, std::integer_sequence<int, kLane...>) {
    return __builtin_shufflevector(x, x, ((kLane + kBy) % kLanes)...);
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
typedef uint16_t LooseWord __attribute__((may_alias));
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
