// The instructions that only some machines have, where the including file is compiled for them.
#pragma once

#include <immintrin.h>

#include "attention/cpu/vectors.h"

namespace nanoflex::cpu {
namespace {

#ifdef __AVX512BF16__
struct NativeDot {
  using F = Vectors<16>::F;
  using U = Vectors<16>::U;
  static F dot(F sum, U a, U b) {
    return reinterpret_cast<F>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum),
                                                reinterpret_cast<__m512bh>(a),
                                                reinterpret_cast<__m512bh>(b)));
  }
};
#endif

#if defined(__AMX_BF16__) || defined(__AMXBF16__)  // as g++ and as older clang say it
// The compiler's tile instructions take literal register numbers and do not say that they touch
// memory: hence the switches and the barriers.
struct NativeTiles {
  // Tile registers have a shape while a session lasts.
  struct Session {
    Session() {
      struct alignas(64) Config {
        uint8_t palette = 1, start = 0, reserved[14] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};
      } config;
      for (int t = 0; t < 8; ++t) config.bytes[t] = 64, config.rows[t] = 16;
      barrier();
      _tile_loadconfig(&config);
    }
    ~Session() { _tile_release(); }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
  };

  static void barrier() { __asm__ volatile("" ::: "memory"); }

  template <int t>
  static void zero() {
    if constexpr (t == 0) _tile_zero(0);
    if constexpr (t == 1) _tile_zero(1);
    if constexpr (t == 2) _tile_zero(2);
    if constexpr (t == 3) _tile_zero(3);
  }

  template <int t, typename T>
  static void load(const T* from, ptrdiff_t row_stride) {
    const ptrdiff_t bytes = row_stride * static_cast<ptrdiff_t>(sizeof(T));
    barrier();
    if constexpr (t == 0) _tile_loadd(0, from, bytes);
    if constexpr (t == 1) _tile_loadd(1, from, bytes);
    if constexpr (t == 2) _tile_loadd(2, from, bytes);
    if constexpr (t == 3) _tile_loadd(3, from, bytes);
    if constexpr (t == 4) _tile_loadd(4, from, bytes);
    if constexpr (t == 5) _tile_loadd(5, from, bytes);
    if constexpr (t == 6) _tile_loadd(6, from, bytes);
    if constexpr (t == 7) _tile_loadd(7, from, bytes);
  }

  template <int t>
  static void store(float* to, ptrdiff_t row_stride) {
    const ptrdiff_t bytes = row_stride * static_cast<ptrdiff_t>(sizeof(float));
    if constexpr (t == 0) _tile_stored(0, to, bytes);
    if constexpr (t == 1) _tile_stored(1, to, bytes);
    if constexpr (t == 2) _tile_stored(2, to, bytes);
    if constexpr (t == 3) _tile_stored(3, to, bytes);
    barrier();
  }

  template <int c, int a, int b>
  static void dot() {
    if constexpr (c == 0) _tile_dpbf16ps(0, 4, 6);
    if constexpr (c == 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (c == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (c == 3) _tile_dpbf16ps(3, 5, 7);
  }
};
#endif

}  // namespace
}  // namespace nanoflex::cpu
