// Products on AMX's tiles: 16 rows of 64 bytes, 16 x 16 fp32 sums of pairs of bfloat16.
#pragma once

#include <utility>

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

using Rows16 = Vectors<16>::U;

// Rows i and i + s trade blocks of s lanes.
template <int s, int... lane>
void trade(Rows16& first, Rows16& second, std::integer_sequence<int, lane...>) {
  const Rows16 low = __builtin_shufflevector(first, second, (lane & s ? 16 + lane - s : lane)...);
  second = __builtin_shufflevector(first, second, (lane & s ? 16 + lane : lane + s)...);
  first = low;
}

template <int s>
[[gnu::always_inline]] inline void trade_all(Rows16 (&rows)[16]) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    if ((i & s) == 0) trade<s>(rows[i], rows[i + s], std::make_integer_sequence<int, 16>());
  }
}

// 16 x 16 elements, transposed in four rounds.
inline void transpose_16(const uint32_t* from, ptrdiff_t from_row, uint32_t* to, ptrdiff_t to_row) {
  using V = Vectors<16>;
  Rows16 rows[16];
  for (int i = 0; i < 16; ++i) rows[i] = V::load(from + i * from_row);
  trade_all<8>(rows);
  trade_all<4>(rows);
  trade_all<2>(rows);
  trade_all<1>(rows);
  for (int i = 0; i < 16; ++i) V::store(to + i * to_row, rows[i]);
}

/// Pairs of bfloat16 with fp32 sums on tiles; softmax on 16 lanes.
template <typename Tiles>
struct AmxMath {
  using Element = uint32_t;
  static constexpr int kLanes = 16, kVectors = 2;
  static constexpr int kPair = 2;
  using Session = typename Tiles::Session;
  static constexpr int kSteps = 128;    // of a part of a product
  static constexpr int kColumns = 256;  // of a part of a product

  static void multiply(int M, int N, int K, Operand<Element> a, const Element* b, ptrdiff_t b_step,
                       float* c, ptrdiff_t c_row, bool accumulate) {
    for (int n = 0; n < N; n += kColumns) {
      for (int k = 0; k < K; k += kSteps) {
        multiply_part(M, smaller(kColumns, N - n), smaller(kSteps, K - k),
                      {a.data + k * a.step, a.row, a.step}, b + k * b_step + n, b_step, c + n,
                      c_row, accumulate || k > 0);
      }
    }
  }

 private:
  static void multiply_part(int M, int N, int K, Operand<Element> a, const Element* b,
                            ptrdiff_t b_step, float* c, ptrdiff_t c_row, bool accumulate) {
    alignas(64) Element a_copy[32 * kSteps], b_copy[16 * kColumns];
    const int whole = K / 16 * 16;
    if (whole < K) copy_tail(b + whole * b_step, b_step, K - whole, N, b_copy);
    for (int m = 0; m < M; m += 32) {
      const int rows = smaller(32, M - m);
      Operand<Element> left{a.data + m * a.row, a.row, a.step};
      if (a.step != 1 || rows % 16 != 0 || whole < K) left = copy_rows(left, rows, K, a_copy);
      for (int n = 0; n < N; n += 32) {
        Block block{.left = left,
                    .right = b + n,
                    .right_step = b_step,
                    .tail = b_copy + n,
                    .tail_step = N,
                    .whole = whole,
                    .K = K,
                    .tall = rows > 16,
                    .wide = N - n > 16};
        multiply_ragged(block, rows, c + m * c_row + n, c_row, accumulate);
      }
    }
  }

  struct Block {
    Operand<Element> left;
    const Element* right;
    ptrdiff_t right_step;
    const Element* tail;  // the last steps of `right`, filled up with zeros to 16
    ptrdiff_t tail_step;
    int whole, K;
    bool tall, wide;  // two tiles of rows, of columns
  };

  static void copy_tail(const Element* b, ptrdiff_t step, int steps, int N, Element* to) {
    for (int k = 0; k < 16; ++k) {
      for (int n = 0; n < N; n += 16) {
        const auto row = k < steps ? Vectors<16>::load(b + k * step + n) : Vectors<16>::U{};
        Vectors<16>::store(to + k * N + n, row);
      }
    }
  }

  // Rows of pairs that are neighbours, [32, K filled up to 16] with zeros.
  static Operand<Element> copy_rows(Operand<Element> a, int rows, int K, Element* to) {
    const int width = (K + 15) / 16 * 16;
    for (int m = 0; m < 32; m += 16) {
      for (int k = 0; k < width; k += 16) {
        const Element* from = a.data + m * a.row + k * a.step;
        Element* out = to + m * width + k;
        if (a.row == 1 && m + 16 <= rows && k + 16 <= K) {
          transpose_16(from, a.step, out, width);
          continue;
        }
        for (int i = 0; i < 16; ++i) {
          for (int j = 0; j < 16; ++j) {
            const bool inside = m + i < rows && k + j < K;
            out[i * width + j] = inside ? element(from + i * a.row + j * a.step) : 0;
          }
        }
      }
    }
    return {to, width, 1};
  }

  // Rows of c that do not fill their tile go through a copy.
  static void multiply_ragged(const Block& block, int rows, float* c, ptrdiff_t c_row,
                              bool accumulate) {
    if (rows % 16 == 0) return multiply_block(block, c, c_row, accumulate);
    alignas(64) float copy[32 * 32] = {};
    const int columns = block.wide ? 32 : 16;
    for (int m = 0; accumulate && m < rows; ++m) {
      __builtin_memcpy(copy + m * 32, c + m * c_row, sizeof(float) * columns);
    }
    multiply_block(block, copy, 32, accumulate);
    for (int m = 0; m < rows; ++m) {
      __builtin_memcpy(c + m * c_row, copy + m * 32, sizeof(float) * columns);
    }
  }

  // Sums in tiles 0 .. 3, rows of a in 4 and 5, columns of b in 6 and 7.
  static void multiply_block(const Block& block, float* c, ptrdiff_t c_row, bool accumulate) {
    Tiles::template zero<0>();
    Tiles::template zero<1>();
    Tiles::template zero<2>();
    Tiles::template zero<3>();
    for (int k = 0; k < block.K; k += 16) {
      const bool whole = k < block.whole;
      const Element* right = whole ? block.right + k * block.right_step : block.tail;
      const ptrdiff_t step = whole ? block.right_step : block.tail_step;
      const Element* left = block.left.data + k;
      Tiles::template load<4>(left, block.left.row);
      Tiles::template load<6>(right, step);
      Tiles::template dot<0, 4, 6>();
      if (block.wide) {
        Tiles::template load<7>(right + 16, step);
        Tiles::template dot<1, 4, 7>();
      }
      if (!block.tall) continue;
      Tiles::template load<5>(left + 16 * block.left.row, block.left.row);
      Tiles::template dot<2, 5, 6>();
      if (block.wide) Tiles::template dot<3, 5, 7>();
    }
    put<0>(c, c_row, accumulate);
    if (block.wide) put<1>(c + 16, c_row, accumulate);
    if (block.tall) put<2>(c + 16 * c_row, c_row, accumulate);
    if (block.tall && block.wide) put<3>(c + 16 * c_row + 16, c_row, accumulate);
  }

  // Added at the end, so that rounding errors grow with the number of tiles, not of terms.
  template <int t>
  static void put(float* c, ptrdiff_t c_row, bool accumulate) {
    if (!accumulate) return Tiles::template store<t>(c, c_row);
    using V = Vectors<16>;
    alignas(64) float sum[16 * 16];
    Tiles::template store<t>(sum, 16);
    for (int i = 0; i < 16; ++i) {
      V::store(c + i * c_row, V::load(c + i * c_row) + V::load(sum + 16 * i));
    }
  }
};

}  // namespace
}  // namespace nanoflex::cpu
