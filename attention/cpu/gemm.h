// c += a b on tiles that lie in cache: the one product that the attention kernels are made of.
//
// a: [m, k] by two strides, so that a transposed tile needs no copy; b: [k, n], rows of b_step; c:
// [m, n] fp32. An element is a float or a pair of bfloat16 that are neighbours along k.
#pragma once

#include "attention/cpu/math.h"

namespace nanoflex::cpu {
namespace {

constexpr int kLongestChain = 96;  // of sums one by one; a longer one would lose digits

template <typename Element>
struct Operand {
  const Element* data;
  ptrdiff_t row, step;  ///< strides along m (or n) and along k, in elements
};

// kRows x kVectors accumulators stay in registers over the whole of k.
template <typename Math, int kRows, int kVectors>
[[gnu::always_inline]] inline void multiply_block(int K, Operand<typename Math::Element> a,
                                                  const typename Math::Element* b, ptrdiff_t b_step,
                                                  float* c, ptrdiff_t c_row, bool accumulate) {
  using V = Vectors<Math::kLanes>;
  typename V::F sum[kRows][kVectors] = {};
  for (int k = 0; k < K; ++k) {
    decltype(V::load(b)) columns[kVectors];
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; ++n) columns[n] = V::load(b + n * Math::kLanes);
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) {
      const auto row = V::broadcast(element(a.data + m * a.row));
#pragma GCC unroll 4
      for (int n = 0; n < kVectors; ++n) sum[m][n] = Math::dot(sum[m][n], row, columns[n]);
    }
    a.data += a.step;
    b += b_step;
  }
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; ++n) {
      float* at = c + m * c_row + n * Math::kLanes;
      // Added at the end, so that rounding errors grow with the number of tiles, not of terms.
      V::store(at, accumulate ? V::load(at) + sum[m][n] : sum[m][n]);
    }
  }
}

// The rows that are left over when Math::kRows does not divide M.
template <typename Math, int kRows, int kVectors, typename... Rest>
void multiply_rest(int rows, Rest... rest) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      multiply_block<Math, kRows, kVectors>(rest...);
    } else {
      multiply_rest<Math, kRows - 1, kVectors>(rows, rest...);
    }
  }
}

template <typename Math, int kVectors>
void multiply_columns(int M, int K, Operand<typename Math::Element> a,
                      const typename Math::Element* b, ptrdiff_t b_step, float* c, ptrdiff_t c_row,
                      bool accumulate) {
  int m = 0;
  for (; m + Math::kRows <= M; m += Math::kRows) {
    multiply_block<Math, Math::kRows, kVectors>(K, {a.data + m * a.row, a.row, a.step}, b, b_step,
                                                c + m * c_row, c_row, accumulate);
  }
  multiply_rest<Math, Math::kRows - 1, kVectors>(
      M - m, K, Operand<typename Math::Element>{a.data + m * a.row, a.row, a.step}, b, b_step,
      c + m * c_row, c_row, accumulate);
}

template <typename Math>
void multiply_vectors(int M, int N, int K, Operand<typename Math::Element> a,
                      const typename Math::Element* b, ptrdiff_t b_step, float* c, ptrdiff_t c_row,
                      bool accumulate) {
  constexpr int kColumns = Math::kVectors * Math::kLanes;
  int n = 0;
  for (; n + kColumns <= N; n += kColumns) {
    multiply_columns<Math, Math::kVectors>(M, K, a, b + n, b_step, c + n, c_row, accumulate);
  }
  for (; n < N; n += Math::kLanes) {
    multiply_columns<Math, 1>(M, K, a, b + n, b_step, c + n, c_row, accumulate);
  }
}

/// c[M, N] = a[M, K] b[K, N], or += when `accumulate`. REQUIRES: N a multiple of Math::kLanes, M
/// and K of Math::kUnit; a.step == 1 where that is not 1 (see tiles.h: left_rows, left_columns).
template <typename Math>
void multiply(int M, int N, int K, Operand<typename Math::Element> a,
              const typename Math::Element* b, ptrdiff_t b_step, float* c, ptrdiff_t c_row,
              bool accumulate) {
  if constexpr (requires { Math::multiply(M, N, K, a, b, b_step, c, c_row, accumulate); }) {
    Math::multiply(M, N, K, a, b, b_step, c, c_row, accumulate);  // tile registers
  } else {
    constexpr int kTerms = kLongestChain / Math::kPair;
    for (int k = 0; k < K; k += kTerms) {
      multiply_vectors<Math>(M, N, smaller(kTerms, K - k), {a.data + k * a.step, a.row, a.step},
                             b + k * b_step, b_step, c, c_row, accumulate || k > 0);
    }
  }
}

}  // namespace
}  // namespace nanoflex::cpu
