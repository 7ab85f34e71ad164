// Products on AMX's tiles: 16 rows of 64 bytes, 16 x 16 fp32 sums of pairs of bfloat16.
#pragma once

#include "attention/cpu/gemm.h"
#include "attention/cpu/math.h"

namespace nanoflex::cpu {
namespace {

/// The tile registers and TDPBF16PS in plain C++ (Intel's manual, volume 2, "TDPBF16PS").
struct PlainTiles {
  alignas(64) static inline thread_local uint32_t tile[8][16][16];

  struct Session {};

  template <int t>
  static void zero() {
    for (auto& row : tile[t]) {
      for (uint32_t& x : row) x = 0;
    }
  }
  template <int t, typename T>
  static void load(const T* from, ptrdiff_t row_stride) {
    for (int i = 0; i < 16; ++i) {
      __builtin_memcpy(tile[t][i], from + i * row_stride, 64);
    }
  }
  template <int t>
  static void store(float* to, ptrdiff_t row_stride) {
    for (int i = 0; i < 16; ++i) __builtin_memcpy(to + i * row_stride, tile[t][i], 64);
  }
  template <int c, int a, int b>
  static void dot() {
    using F = Vectors<16>::F;
    for (int i = 0; i < 16; ++i) {
      F sum;
      __builtin_memcpy(&sum, tile[c][i], 64);
      for (int k = 0; k < 16; ++k) {
        sum = PlainDot::dot(sum, Vectors<16>::broadcast(tile[a][i][k]),
                            Vectors<16>::load(tile[b][k]));
      }
      __builtin_memcpy(tile[c][i], &sum, 64);
    }
  }
};

/// Pairs of bfloat16 with fp32 sums on tiles; softmax on 16 lanes.
template <typename Tiles>
struct AmxMath {
  using Element = uint32_t;
  static constexpr int kLanes = 16, kVectors = 4;
  static constexpr int kPair = 2, kUnit = 16;
  using Session = typename Tiles::Session;

  /// REQUIRES: M, N and K multiples of kUnit.
  static void multiply(int M, int N, int K, Operand<Element> a, Columns<const Element> b,
                       Columns<float> c, bool accumulate) {
    const auto block = [&](int m, int n) {
      const Operand<Element> rows{a.data + m * a.row, a.row, a.step};
      const Columns<const Element> columns = panel_of(b, n / 16);
      const Columns<float> out = panel_of(c.from(m), n / 16);
      if (M - m > 16) {
        if (N - n > 16) {
          multiply_block<true, true>(K, rows, columns, out, accumulate);
        } else {
          multiply_block<true, false>(K, rows, columns, out, accumulate);
        }
      } else if (N - n > 16) {
        multiply_block<false, true>(K, rows, columns, out, accumulate);
      } else {
        multiply_block<false, false>(K, rows, columns, out, accumulate);
      }
    };
    // The larger factor is read once, the smaller one again and again.
    if (M > N) {
      for (int m = 0; m < M; m += 32) {
        for (int n = 0; n < N; n += 32) block(m, n);
      }
    } else {
      for (int n = 0; n < N; n += 32) {
        for (int m = 0; m < M; m += 32) block(m, n);
      }
    }
  }

 private:
  // Sums in tiles 0 .. 3, rows of a in 4 and 5, columns of b in 6 and 7. kTall, kWide: two tiles of
  // rows, of columns.
  template <bool kTall, bool kWide>
  static void multiply_block(int K, Operand<Element> a, Columns<const Element> b, Columns<float> c,
                             bool accumulate) {
    float* lower = c.data + 16 * c.row;
    begin<0>(c.data, c.row, accumulate);
    if constexpr (kWide) begin<1>(c.data + c.panel, c.row, accumulate);
    if constexpr (kTall) begin<2>(lower, c.row, accumulate);
    if constexpr (kTall && kWide) begin<3>(lower + c.panel, c.row, accumulate);
    for (int k = 0; k < K; k += 16) {
      Tiles::template load<4>(a.data + k * a.step, a.row);
      Tiles::template load<6>(b.data + k * b.row, b.row);
      Tiles::template dot<0, 4, 6>();
      if constexpr (kWide) {
        Tiles::template load<7>(b.data + k * b.row + b.panel, b.row);
        Tiles::template dot<1, 4, 7>();
      }
      if constexpr (kTall) {
        Tiles::template load<5>(a.data + k * a.step + 16 * a.row, a.row);
        Tiles::template dot<2, 5, 6>();
        if constexpr (kWide) Tiles::template dot<3, 5, 7>();
      }
    }
    Tiles::template store<0>(c.data, c.row);
    if constexpr (kWide) Tiles::template store<1>(c.data + c.panel, c.row);
    if constexpr (kTall) Tiles::template store<2>(lower, c.row);
    if constexpr (kTall && kWide) Tiles::template store<3>(lower + c.panel, c.row);
  }

  template <int t>
  static void begin(const float* c, ptrdiff_t c_row, bool accumulate) {
    if (accumulate) {
      Tiles::template load<t>(c, c_row);
    } else {
      Tiles::template zero<t>();
    }
  }
};

}  // namespace
}  // namespace nanoflex::cpu
