// fp32 tiles in shared memory, and products of them by 256 threads: with fused multiply-adds, or
// with tensor cores in tf32 (10 bits of mantissa).
#pragma once

#include "attention/cuda/ptx.cuh"
#include "attention/cuda/tile.cuh"

namespace nanoflex::cuda {

constexpr int kThreads32 = 256;

/// Rows lie 4 numbers apart from a multiple of 32, so that eight rows touch all banks.
template <int kRows_, int kColumns_>
struct Tile32 {
  using T = float;
  static constexpr int kRows = kRows_, kColumns = kColumns_, kStride = kColumns + 4;
  static constexpr int kElements = kRows * kStride;
  float* data;
  __device__ __forceinline__ float* at(int row, int column) const {
    return data + row * kStride + column;
  }
  /// The 16 bytes at a column that is a multiple of 4.
  __device__ __forceinline__ float* chunk(int row, int column) const { return at(row, column); }
};

/// Starts copying rows [0, rows) and columns [0, kHeadSize), `stride` elements apart.
template <int kHeadSize, typename Tile>
__device__ __forceinline__ void load_tile32(const Tile& tile, const float* source, int64_t stride,
                                            int rows) {
  constexpr int kChunks = Tile::kColumns / 4;
  for (int i = static_cast<int>(threadIdx.x); i < Tile::kRows * kChunks; i += kThreads32) {
    const int row = i / kChunks, column = i % kChunks * 4;
    const int bytes = row < rows ? min(max(4 * (kHeadSize - column), 0), 16) : 0;
    cp_async_16(tile.at(row, column), source + row * stride + column, bytes);
  }
}

/// A kRows x kColumns matrix over the threads of a block.
template <int kRows, int kColumns, bool kTf32>
struct Accumulator;

/// Thread (y, x) of 16 x 16 holds rows y + 16 i, columns x + 16 j.
template <int kRows, int kColumns>
struct Accumulator<kRows, kColumns, false> {
  static constexpr int R = kRows / 16, C = kColumns / 16;
  float c[R][C] = {};

  template <typename F>
  __device__ __forceinline__ void for_each(const F& f) {
    const int y = static_cast<int>(threadIdx.x / 16), x = static_cast<int>(threadIdx.x % 16);
#pragma unroll
    for (int i = 0; i < R; ++i) {
#pragma unroll
      for (int j = 0; j < C; ++j) f(y + 16 * i, x + 16 * j, c[i][j]);
    }
  }

  /// += a b^T or, with b's rows the inner dimension, a b.
  template <bool kTransposed, typename A, typename B>
  __device__ __forceinline__ void add(const A& a, const B& b) {
    const int y = static_cast<int>(threadIdx.x / 16), x = static_cast<int>(threadIdx.x % 16);
#pragma unroll 4
    for (int k = 0; k < A::kColumns; k += 4) {
      float a_k[R][4];
#pragma unroll
      for (int i = 0; i < R; ++i) load_chunk(a_k[i], a.at(y + 16 * i, k));
#pragma unroll
      for (int j = 0; j < C; ++j) {
        float b_k[4];
        if constexpr (kTransposed) {
          load_chunk(b_k, b.at(x + 16 * j, k));
        } else {
#pragma unroll
          for (int e = 0; e < 4; ++e) b_k[e] = *b.at(k + e, x + 16 * j);
        }
#pragma unroll
        for (int i = 0; i < R; ++i) {
          float sum = c[i][j];
#pragma unroll
          for (int e = 0; e < 4; ++e) sum = fmaf(a_k[i][e], b_k[e], sum);
          c[i][j] = sum;
        }
      }
    }
  }
};

/// The 8 warps hold 16-row tiles, and where there are fewer than 8, share their columns.
template <int kRows, int kColumns>
struct Accumulator<kRows, kColumns, true> {
  static constexpr int kWarps = kThreads32 / 32, kAcross = kWarps / (kRows / 16);
  static constexpr int C = (kColumns / 8 + kAcross - 1) / kAcross;
  float c[C][4] = {};

  __device__ static __forceinline__ int row() { return warp_index() / kAcross * 16; }
  __device__ static __forceinline__ int column(int j) {
    return (warp_index() % kAcross + j * kAcross) * 8;
  }
  __device__ static __forceinline__ uint32_t to_tf32(float x) {
    // To nearest: the hardware drops 13 bits. Of a GPU's NaN, all ones, the sum would be -0.
    return x != x ? 0x7fc00000u : __float_as_uint(x) + 0x1000;
  }

  template <typename F>
  __device__ __forceinline__ void for_each(const F& f) {
    const int lane = lane_index();
#pragma unroll
    for (int j = 0; j < C; ++j) {
      if (column(j) >= kColumns) continue;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        f(row() + lane / 4 + e / 2 * 8, column(j) + lane % 4 * 2 + e % 2, c[j][e]);
      }
    }
  }

  template <bool kTransposed, typename A, typename B>
  __device__ __forceinline__ void add(const A& a, const B& b) {
    const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll 2
    for (int k = 0; k < A::kColumns; k += 8) {
      const uint32_t a_k[4] = {
          to_tf32(*a.at(row() + g, k + t)), to_tf32(*a.at(row() + g + 8, k + t)),
          to_tf32(*a.at(row() + g, k + t + 4)), to_tf32(*a.at(row() + g + 8, k + t + 4))};
#pragma unroll
      for (int j = 0; j < C; ++j) {
        if (column(j) >= kColumns) continue;
        const int n = column(j) + g;
        const uint32_t b_k[2] = {to_tf32(kTransposed ? *b.at(n, k + t) : *b.at(k + t, n)),
                                 to_tf32(kTransposed ? *b.at(n, k + t + 4) : *b.at(k + t + 4, n))};
        mma_16x8x8_tf32(c[j], a_k, b_k);
      }
    }
  }
};

/// f(row, column, number) for this thread's part of a block's rows.
template <int kRows, int kColumns, bool kTf32, typename F>
__device__ __forceinline__ void for_each_number(Accumulator<kRows, kColumns, kTf32>& c,
                                                const F& f) {
  c.for_each(f);
}

}  // namespace nanoflex::cuda
