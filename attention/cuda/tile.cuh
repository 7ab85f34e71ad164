// Tiles of 16-bit numbers in shared memory, and products of them by tensor cores.
//
// A warp's accumulator c[i][j][4] covers rows 16 i .. and columns 8 j .. of its rows: lane l holds
// (l / 4, 2 (l % 4) + {0, 1}) in c[0], c[1] and the same eight rows below in c[2], c[3].
#pragma once

#include "attention/cuda/elements.cuh"

namespace nanoflex::cuda {

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x % 32); }
__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x / 32); }

/// kRows x kColumns in panels of 64 (or 32) columns. Within a panel the 16-byte chunks of a row are
/// permuted so that eight rows of one chunk, or eight chunks of one row, touch all 32 banks.
template <typename T_, int kRows_, int kColumns_>
struct SharedTile {
  using T = T_;
  static constexpr int kRows = kRows_, kColumns = kColumns_;
  static constexpr int kPanel = kColumns % 64 == 0 ? 64 : 32;
  static constexpr int kChunks = kPanel / 8;  // of a row within a panel
  static constexpr int kElements = kRows * kColumns;
  static_assert(kColumns % kPanel == 0 && kRows % 8 == 0);

  T* data;

  /// The part of an element's place that differs between lanes, so that the compiler computes it
  /// once: `row` and `chunk` of this lane, relative to those that at() is given.
  __device__ static __forceinline__ uint32_t lane_place(uint32_t row, uint32_t chunk) {
    return row * kPanel + (chunk ^ row / (8 / kChunks) % kChunks) * 8;
  }
  /// column: a multiple of 8. The lane's row and chunk have no bit in common with row % 8 and the
  /// column's chunk.
  __device__ __forceinline__ T* at(uint32_t place, uint32_t row, uint32_t column) const {
    const uint32_t permuted = column % kPanel ^ row / (8 / kChunks) % kChunks * 8;
    return data + (column / kPanel * kRows + row) * kPanel + (place ^ permuted);
  }

  /// The 16 bytes at a row and a column that is a multiple of 8, for a few alone.
  __device__ __forceinline__ T* chunk(int row, int column) const {
    return at(lane_place(row % 8, column % kPanel / 8), row & ~7, column / kPanel * kPanel);
  }

  /// A 16 x 16 left operand; rows and columns here and below are multiples of 16.
  __device__ __forceinline__ void load_a(uint32_t (&a)[4], uint32_t lane, int row,
                                         int column) const {
    ldmatrix_x4(a, at(lane_place(lane % 16, lane / 16), row, column));
  }

  /// Right operands of two products whose output columns are this tile's rows row .. row + 15, and
  /// whose inner dimension is its columns column .. column + 15.
  __device__ __forceinline__ void load_b(uint32_t (&b)[2][2], uint32_t lane, int row,
                                         int column) const {
    uint32_t r[4];
    ldmatrix_x4(r, at(lane_place(lane % 8 + lane / 16 * 8, lane / 8 % 2), row, column));
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
  }

  /// The same with output columns along this tile's columns, inner dimension along its rows.
  __device__ __forceinline__ void load_b_trans(uint32_t (&b)[2][2], uint32_t lane, int row,
                                               int column) const {
    uint32_t r[4];
    ldmatrix_x4_trans(r, at(lane_place(lane % 16, lane / 16), row, column));
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
  }
};

/// Starts copying rows [0, rows) and columns [0, columns) of a matrix into a tile and zeroes the
/// rest. row_pointer(r): row r's first element, 16-byte aligned. Commit and wait are the caller's.
template <int kThreads, typename Tile, typename RowPointer>
__device__ __forceinline__ void load_rows(const Tile& tile, int rows, int columns,
                                          const RowPointer& row_pointer) {
  constexpr int kStep = kThreads / Tile::kChunks;
  const int chunk = static_cast<int>(threadIdx.x % Tile::kChunks);
  const int first = static_cast<int>(threadIdx.x / Tile::kChunks);
#pragma unroll 1
  for (int row = first; row < Tile::kRows; row += kStep) {
    const uint32_t place = Tile::lane_place(row % 8, chunk);
    const auto* source = row_pointer(row < rows ? row : 0) + chunk * 8;
#pragma unroll
    for (int panel = 0; panel < Tile::kColumns; panel += Tile::kPanel) {
      const int width = min(max(2 * (columns - chunk * 8 - panel), 0), 16);
      cp_async_16(tile.at(place, row & ~7, panel), source + panel, row < rows ? width : 0);
    }
  }
}

/// The same for rows `stride` elements apart, from `source`.
template <int kThreads, typename Tile, typename T = typename Tile::T>
__device__ __forceinline__ void load_tile(const Tile& tile, const T* source, int64_t stride,
                                          int rows, int columns) {
  constexpr int kStep = kThreads / Tile::kChunks;
  const int chunk = static_cast<int>(threadIdx.x % Tile::kChunks);
  const int first = static_cast<int>(threadIdx.x / Tile::kChunks);
  const uint32_t place = Tile::lane_place(first, chunk);
  source += first * stride + chunk * 8;
#pragma unroll
  for (int row = 0; row < Tile::kRows; row += kStep) {
    if (Tile::kRows % kStep == 0 || row + first < Tile::kRows) {
#pragma unroll
      for (int panel = 0; panel < Tile::kColumns; panel += Tile::kPanel) {
        const int width = min(max(2 * (columns - chunk * 8 - panel), 0), 16);
        cp_async_16(tile.at(place, row, panel), source + panel, row + first < rows ? width : 0);
      }
    }
    source += kStep * stride;
  }
}

/// c += a b^T over kDepth columns of both; a's rows start at `row`, b's rows are c's columns.
template <int kDepth, int R, int C, typename TileA, typename TileB>
__device__ __forceinline__ void multiply_transposed(float (&c)[R][C][4], const TileA& a, int row,
                                                    const TileB& b) {
  const uint32_t lane = opaque(lane_index());
#pragma unroll
  for (int k = 0; k < kDepth; k += 16) {
    uint32_t a_k[R][4];
#pragma unroll
    for (int i = 0; i < R; ++i) a.load_a(a_k[i], lane, row + 16 * i, k);
#pragma unroll
    for (int j = 0; j < C; j += 2) {
      uint32_t b_k[2][2];
      b.load_b(b_k, lane, 8 * j, k);
#pragma unroll
      for (int i = 0; i < R; ++i) {
        mma_16x8x16<typename TileA::T>(c[i][j], a_k[i], b_k[0]);
        mma_16x8x16<typename TileA::T>(c[i][j + 1], a_k[i], b_k[1]);
      }
    }
  }
}

/// c += p b: p, an accumulator over b's rows, is rounded to T and used as left operand in place.
template <int R, int C, int K, typename Tile>
__device__ __forceinline__ void multiply_registers(float (&c)[R][C][4], const float (&p)[R][K][4],
                                                   const Tile& b) {
  using T = typename Tile::T;
  const uint32_t lane = opaque(lane_index());
#pragma unroll
  for (int k = 0; k < K; k += 2) {
    uint32_t a[R][4];
#pragma unroll
    for (int i = 0; i < R; ++i) {
      a[i][0] = round_pair<T>(p[i][k][0], p[i][k][1]);
      a[i][1] = round_pair<T>(p[i][k][2], p[i][k][3]);
      a[i][2] = round_pair<T>(p[i][k + 1][0], p[i][k + 1][1]);
      a[i][3] = round_pair<T>(p[i][k + 1][2], p[i][k + 1][3]);
    }
#pragma unroll
    for (int j = 0; j < C; j += 2) {
      uint32_t b_k[2][2];
      b.load_b_trans(b_k, lane, 8 * k, 8 * j);
#pragma unroll
      for (int i = 0; i < R; ++i) {
        mma_16x8x16<T>(c[i][j], a[i], b_k[0]);
        mma_16x8x16<T>(c[i][j + 1], a[i], b_k[1]);
      }
    }
  }
}

template <int R, int C>
__device__ __forceinline__ void fill(float (&c)[R][C][4], float value) {
#pragma unroll
  for (int i = 0; i < R; ++i) {
#pragma unroll
    for (int j = 0; j < C; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) c[i][j][e] = value;
    }
  }
}

template <int R, int C>
__device__ __forceinline__ void multiply_by(float (&c)[R][C][4], float factor) {
#pragma unroll
  for (int i = 0; i < R; ++i) {
#pragma unroll
    for (int j = 0; j < C; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) c[i][j][e] *= factor;
    }
  }
}

/// f(row, column, number) for this lane's part of a warp's rows, counted from its first.
template <int R, int C, typename F>
__device__ __forceinline__ void for_each_offset(float (&c)[R][C][4], const F& f) {
#pragma unroll
  for (int i = 0; i < R; ++i) {
#pragma unroll
    for (int j = 0; j < C; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        f(16 * i + e / 2 * 8, 8 * j + e % 2, c[i][j][e]);
      }
    }
  }
}
/// The same, counted from the warp's first row and column.
template <int R, int C, typename F>
__device__ __forceinline__ void for_each_number(float (&c)[R][C][4], const F& f) {
  const int lane = static_cast<int>(opaque(lane_index()));
  const int row = lane / 4, column = lane % 4 * 2;
  for_each_offset(c, [&](int r, int j, float& number) { f(row + r, column + j, number); });
}

/// Rounds a warp's rows to T and stores them, through its own rows (from `row`) of `tile`, as
/// 16-byte pieces. row_pointer(r): where row r of the block goes; rows >= `rows` and columns >=
/// `columns` rounded up to 8 are left alone. REQUIRES: only this warp still reads its rows of tile.
template <int R, int C, typename Tile, typename RowPointer>
__device__ __forceinline__ void store_rows(const float (&c)[R][C][4], const Tile& tile, int row,
                                           int rows, int columns, const RowPointer& row_pointer) {
  using T = typename Tile::T;
  const uint32_t lane = lane_index();
  __syncwarp();
#pragma unroll
  for (int i = 0; i < R; ++i) {
#pragma unroll
    for (int j = 0; j < C; ++j) {
      const uint32_t upper = round_pair<T>(c[i][j][0], c[i][j][1]);
      const uint32_t lower = round_pair<T>(c[i][j][2], c[i][j][3]);
      const uint32_t place = Tile::lane_place(lane / 4, 0);
      reinterpret_cast<uint32_t*>(tile.at(place, row + 16 * i, 8 * j))[lane % 4] = upper;
      reinterpret_cast<uint32_t*>(tile.at(place, row + 16 * i + 8, 8 * j))[lane % 4] = lower;
    }
  }
  __syncwarp();
  constexpr int kRowsAtOnce = 32 / Tile::kChunks;
  const int first = static_cast<int>(lane / Tile::kChunks),
            chunk = static_cast<int>(lane % Tile::kChunks);
  const uint32_t place = Tile::lane_place(first, chunk);
#pragma unroll
  for (int i = 0; i < 16 * R; i += kRowsAtOnce) {
    if (row + i + first >= rows) continue;
    auto* target = row_pointer(row + i + first) + chunk * 8;
#pragma unroll
    for (int panel = 0; panel < Tile::kColumns; panel += Tile::kPanel) {
      if (panel + chunk * 8 >= columns) continue;
      *reinterpret_cast<uint4*>(target + panel) =
          *reinterpret_cast<const uint4*>(tile.at(place, row + i, panel));
    }
  }
}

}  // namespace nanoflex::cuda
