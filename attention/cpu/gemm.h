// c += a b on tiles that lie in cache: the one product that the attention kernels are made of.
//
// a: [m, k] by two strides, so that a transposed tile needs no copy; b: [k, n]; c: [m, n] fp32. An
// element is a float or a pair of bfloat16 that are neighbours along k.
#pragma once

#include "attention/cpu/math.h"

namespace nanoflex::cpu {
namespace {

constexpr int kLongestChain = 96;  // of sums one by one; a longer one would lose digits

/// A left factor.
template <typename Element>
struct Operand {
  const Element* data;
  /// Strides along m and along k, in elements. Tile registers take kUnit neighbours along k that
  /// lie side by side: there `step` is a kUnit-th of the way to the next ones.
  ptrdiff_t row, step;
};

/// A right factor, or a result: rows of columns, of which kLanes lie side by side.
template <typename T>
struct Columns {
  T* data;
  ptrdiff_t row, panel;  ///< strides from row to row, and to the next kLanes columns
  /// From row i on.
  Columns from(ptrdiff_t i) const { return {data + i * row, row, panel}; }
  operator Columns<const T>() const { return {data, row, panel}; }
};

/// From the n-th kLanes columns on.
template <typename T>
Columns<T> panel_of(const Columns<T>& x, ptrdiff_t n) {
  return {x.data + n * x.panel, x.row, x.panel};
}

/// How `rows` rows of `width` columns are laid out: one by one, or where tile registers read them,
/// kLanes columns of all rows side by side, so that a tile is a piece of memory.
template <typename Math, typename T>
Columns<T> columns_of(T* data, int64_t rows, int64_t width) {
  if constexpr (Math::kUnit == 1) return {data, width, Math::kLanes};
  return {data, Math::kLanes, rows * Math::kLanes};
}

// kRows x kVectors accumulators stay in registers over the whole of k.
template <typename Math, int kRows, int kVectors>
[[gnu::always_inline]] inline void multiply_block(int K, Operand<typename Math::Element> a,
                                                  Columns<const typename Math::Element> b,
                                                  Columns<float> c, bool accumulate) {
  using V = Vectors<Math::kLanes>;
  typename V::F sum[kRows][kVectors] = {};
  for (int k = 0; k < K; ++k) {
    decltype(V::load(b.data)) columns[kVectors];
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; ++n) columns[n] = V::load(b.data + n * b.panel);
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) {
      const auto row = V::broadcast(element(a.data + m * a.row));
#pragma GCC unroll 4
      for (int n = 0; n < kVectors; ++n) sum[m][n] = Math::dot(sum[m][n], row, columns[n]);
    }
    a.data += a.step;
    b.data += b.row;
  }
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; ++n) {
      float* at = c.data + m * c.row + n * c.panel;
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
                      Columns<const typename Math::Element> b, Columns<float> c, bool accumulate) {
  int m = 0;
  for (; m + Math::kRows <= M; m += Math::kRows) {
    multiply_block<Math, Math::kRows, kVectors>(K, {a.data + m * a.row, a.row, a.step}, b,
                                                c.from(m), accumulate);
  }
  multiply_rest<Math, Math::kRows - 1, kVectors>(
      M - m, K, Operand<typename Math::Element>{a.data + m * a.row, a.row, a.step}, b, c.from(m),
      accumulate);
}

template <typename Math>
void multiply_vectors(int M, int N, int K, Operand<typename Math::Element> a,
                      Columns<const typename Math::Element> b, Columns<float> c, bool accumulate) {
  const int panels = N / Math::kLanes;
  int n = 0;
  for (; n + Math::kVectors <= panels; n += Math::kVectors) {
    multiply_columns<Math, Math::kVectors>(M, K, a, panel_of(b, n), panel_of(c, n), accumulate);
  }
  for (; n < panels; ++n) {
    multiply_columns<Math, 1>(M, K, a, panel_of(b, n), panel_of(c, n), accumulate);
  }
}

/// c[M, N] = a[M, K] b[K, N], or += when `accumulate`. REQUIRES: N a multiple of Math::kLanes, M
/// and K of Math::kUnit.
template <typename Math>
void multiply(int M, int N, int K, Operand<typename Math::Element> a,
              Columns<const typename Math::Element> b, Columns<float> c, bool accumulate) {
  if constexpr (requires { Math::multiply(M, N, K, a, b, c, accumulate); }) {
    Math::multiply(M, N, K, a, b, c, accumulate);  // tile registers
  } else {
    constexpr int kTerms = kLongestChain / Math::kPair;
    for (int k = 0; k < K; k += kTerms) {
      multiply_vectors<Math>(M, N, smaller(kTerms, K - k), {a.data + k * a.step, a.row, a.step},
                             b.from(k), c, accumulate || k > 0);
    }
  }
}

}  // namespace
}  // namespace nanoflex::cpu
