// Elementary functions on vectors, to a unit or a few in the last place. Coefficients are our own
// fits, of least relative error.
#pragma once

#include "attention/cpu/vectors.h"

namespace nanoflex::cpu {
namespace {

template <int kLanes>
struct Elementary {
  using V = Vectors<kLanes>;
  using F = typename V::F;
  using I = typename V::I;
  typedef double D __attribute__((vector_size(8 * kLanes)));

  static I bits(F x) { return reinterpret_cast<I>(x); }
  static F number(I x) { return reinterpret_cast<F>(x); }

  /// NaN where either is.
  static F min(F a, F b) { return ((b < a) | (b != b)) ? b : a; }
  static F max(F a, F b) { return ((b > a) | (b != b)) ? b : a; }
  static F abs(F x) { return number(bits(x) & 0x7fffffff); }

  /// The greatest integer that is not above x, within +-2^24; 0 for NaN.
  static I floor(F x) {
    constexpr float kMost = 16777216;
    x = x > kMost ? V::broadcast(kMost) : x < -kMost ? V::broadcast(-kMost) : x;
    x = x == x ? x : F{};
    const I cut = __builtin_convertvector(x, I);
    return cut + (__builtin_convertvector(cut, F) > x);  // true is -1
  }

  static F sqrt(F x) {
    for (int lane = 0; lane < kLanes; ++lane) x[lane] = __builtin_sqrtf(x[lane]);
    return x;
  }

  /// a / b, of b between 1 and 2^126, but for the last place of one in some thousands.
  static F quotient(F a, F b) {
#ifdef __AVX512F__
    if constexpr (kLanes == 16) {  // two steps of Newton's, in half the time of a division
      F inverse = reinterpret_cast<F>(_mm512_maskz_rcp14_ps(0xffff, reinterpret_cast<__m512>(b)));
      inverse += inverse * (1.0f - b * inverse);
      const F q = a * inverse;
      return q + inverse * (a - b * q);
    }
#endif
    return a / b;
  }

  static F exp(F x) {
    constexpr float kMagic = 12582912;  // 1.5 * 2^23: adding it rounds to an integer
    x = x > 100.0f ? V::broadcast(100.0f) : x < -110.0f ? V::broadcast(-110.0f) : x;
    const F n = (x * kLog2E + kMagic) - kMagic;
    const F r = (x - n * 0.693145751953125f) - n * 1.4286068203094172e-6f;  // ln 2 in two parts
    F y = r * 1.3941108433972675e-3f + 8.3751263981532e-3f;
    y = y * r + 4.1666352896775e-2f;
    y = y * r + 1.6666415514653e-1f;
    y = y * r + 5.0000000471178e-1f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    // Two factors: 2^n itself may be out of range where the result is not.
    const I exponent = __builtin_convertvector(x == x ? n : F{}, I), low = exponent >> 1;
    return y * number((low + 127) << 23) * number((exponent - low + 127) << 23);
  }

  static F log(F x) {
    const I tiny = x < 1.17549435e-38f;
    const F normal = tiny ? x * 8388608.0f : x;
    // x = 2^n m with sqrt(1/2) <= m < sqrt(2)
    const I shifted = bits(normal) - 0x3f3504f3;
    const I n = (shifted >> 23) - (tiny & 23);  // tiny is 0 or -1
    const F f = number((shifted & 0x007fffff) + 0x3f3504f3) - 1.0f;
    F p = f * -6.2015001190183e-2f + 1.0530864738939e-1f;
    p = p * f - 1.0646191638200e-1f;
    p = p * f + 1.1037783359055e-1f;
    p = p * f - 1.2450743320911e-1f;
    p = p * f + 1.4286524547787e-1f;
    p = p * f - 1.6668001523072e-1f;
    p = p * f + 2.0000010039685e-1f;
    p = p * f - 2.4999990275042e-1f;
    p = p * f + 3.3333333281199e-1f;
    const F whole = __builtin_convertvector(n, F), square = f * f;
    F y = p * f * square + whole * 1.4286068203094172e-6f;
    y = (y - square * 0.5f) + f + whole * 0.693145751953125f;
    y = x == 0.0f ? V::broadcast(-kInfinity) : y;
    y = x == kInfinity ? x : y;
    return ((x < 0.0f) | (x != x)) ? V::broadcast(__builtin_nanf("")) : y;
  }

  /// The logarithm to base 2 in double precision, to 1e-12, of normal numbers; NaN stays NaN.
  static D log2(F x) {
    // x = 2^n m with sqrt(1/2) <= m < sqrt(2), log m = 2 artanh((m - 1) / (m + 1))
    const I shifted = bits(x) - 0x3f3504f3;
    const D n = __builtin_convertvector(shifted >> 23, D);
    const D m = __builtin_convertvector(number((shifted & 0x007fffff) + 0x3f3504f3), D);
    const D s = (m - 1.0) / (m + 1.0), u = s * s;
    D y = u * (1.0 / 15) + 1.0 / 13;
    y = y * u + 1.0 / 11;
    y = y * u + 1.0 / 9;
    y = y * u + 1.0 / 7;
    y = y * u + 1.0 / 5;
    y = y * u + 1.0 / 3;
    y = y * u + 1.0;
    constexpr double kTwoLog2E = 2.8853900817779268;
    return n + s * y * kTwoLog2E + __builtin_convertvector(x - x, D);
  }

  /// Most arguments are small, those of a soft cap above all: where all lanes of some vectors are,
  /// this takes a third of the time. What becomes of a lane does not depend on the others.
  template <int kCount>
  static void tanh(F (&x)[kCount]) {
    tanh_up_to(0.5f, x, [](F u) {  // to 1.6e-8, before rounding
      F p = u * 1.72414910048246e-2f - 5.3045492619276e-2f;
      p = p * u + 1.33258789777756e-1f;
      return p * u - 3.33331435918808e-1f;
    });
  }
  /// The same where most arguments lie within 1.2.
  template <int kCount>
  static void tanh_of_moderate(F (&x)[kCount]) {
    tanh_up_to(1.2f, x, [](F u) {  // to 4.6e-8, before rounding
      F p = u * -2.094621e-4f + 1.71973283e-3f;
      p = p * u - 7.04837791e-3f;
      p = p * u + 2.07956147e-2f;
      p = p * u - 5.36053565e-2f;
      p = p * u + 1.33271298e-1f;
      return p * u - 3.33329212e-1f;
    });
  }
  static F tanh(F x) {
    F only[1] = {x};
    tanh(only);
    return only[0];
  }

  /// x P(x^2) / Q(x^2), to 1.3e-9 up to 9, where fp32 rounds to 1.
  static F tanh_of_any(F x) {
    x = x > 9.0f ? V::broadcast(9.0f) : x < -9.0f ? V::broadcast(-9.0f) : x;
    const F u = x * x;
    F p = u * -1.22489149203e-11f + 3.06464868265e-8f;
    p = p * u + 2.80330808505e-5f;
    p = p * u + 3.86959938047e-3f;
    p = p * u + 1.36809303424e-1f;
    p = p * u + 9.99999998777e-1f;
    F q = u * 1.28915479342e-6f + 3.94087187758e-4f;
    q = q * u + 2.7250494214e-2f;
    q = q * u + 4.70142624506e-1f;
    q = q * u + 1.0f;
    return quotient(x * p, q);
  }

  static F sigmoid(F x) { return 1.0f / (exp(-x) + 1.0f); }

  /// To the floor, with the divisor's sign for the remainder; by zero both are 0. Doubles hold the
  /// quotient of 32-bit integers well enough that cutting it is exact.
  static I divide(I a, I b) {
    const I zero = b == 0, divisor = b - zero;
    const D quotient = __builtin_convertvector(a, D) / __builtin_convertvector(divisor, D);
    I q = __builtin_convertvector(quotient, I);
    const I rest = a - q * divisor;
    q += (rest != 0) & ((rest ^ divisor) < 0);  // true is -1
    return q & ~zero;
  }
  static I remainder(I a, I b) { return (a - divide(a, b) * b) & ~(b == 0); }

  /// Like Python's %: with the divisor's sign.
  static F remainder(F a, F b) {
    for (int lane = 0; lane < kLanes; ++lane) {
      float rest = __builtin_fmodf(a[lane], b[lane]);
      if (rest != 0 && (rest < 0) != (b[lane] < 0)) rest += b[lane];
      a[lane] = rest;
    }
    return a;
  }

 private:
  // x + x u P(u) with u = x^2 where all lanes lie within `limit`.
  template <int kCount, typename Polynomial>
  static void tanh_up_to(float limit, F (&x)[kCount], const Polynomial& P) {
    F small[kCount];
    I large{};
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) {
      const F u = x[i] * x[i];
      small[i] = x[i] * u * P(u) + x[i];
      large |= u > limit * limit;
    }
    if (V::any(large)) [[unlikely]] {
      for (int i = 0; i < kCount; ++i) {
        small[i] = x[i] * x[i] > limit * limit ? tanh_of_any(x[i]) : small[i];
      }
    }
    for (int i = 0; i < kCount; ++i) x[i] = small[i];
  }
};

}  // namespace
}  // namespace nanoflex::cpu
