// Infinities and NaN among the numbers that a product sums over. A pair that may not attend has
// weight 0, and 0 times such a number is NaN: so a step with such pairs looks for them among what
// has arrived, hands them to the rows that see them, and sets them to 0.
#pragma once

#include "attention/cuda/tile32.cuh"

namespace nanoflex::cuda {

__device__ __forceinline__ bool is_finite(float x) { return x - x == 0; }

template <typename T>
constexpr bool kIsHalf = false;
template <>
constexpr bool kIsHalf<__half> = true;

/// Whether any number of a 16-byte chunk is not finite: a carry out of exponents of ones tells.
template <typename T>
__device__ __forceinline__ bool has_non_finite(const T* chunk) {
  constexpr bool kFloat = sizeof(T) == 4;
  constexpr uint32_t kExponents = kFloat ? 0x7f800000 : kIsHalf<T> ? 0x7c007c00 : 0x7f807f80;
  constexpr uint32_t kOnes = kFloat ? 0x00800000 : kIsHalf<T> ? 0x04000400 : 0x00800080;
  const uint4 words = *reinterpret_cast<const uint4*>(chunk);
  const uint32_t carries = ((words.x & kExponents) + kOnes) | ((words.y & kExponents) + kOnes) |
                           ((words.z & kExponents) + kOnes) | ((words.w & kExponents) + kOnes);
  return (carries & 0x80008000) != 0;
}

/// f(chunk) for those that this thread copied with load_tile<kThreads>; they are there for itself
/// once it has waited, for others after a barrier.
template <int kThreads, typename T, int kRows, int kColumns, typename F>
__device__ __forceinline__ void for_each_loaded(const SharedTile<T, kRows, kColumns>& tile,
                                                const F& f) {
  using Tile = SharedTile<T, kRows, kColumns>;
  constexpr int kStep = kThreads / Tile::kChunks;
  const uint32_t thread = opaque(threadIdx.x);
  const int first = static_cast<int>(thread / Tile::kChunks);
  const uint32_t place = Tile::lane_place(first, thread % Tile::kChunks);
#pragma unroll 1
  for (int row = 0; row + first < kRows; row += kStep) {
#pragma unroll
    for (int panel = 0; panel < kColumns; panel += Tile::kPanel) f(tile.at(place, row, panel));
  }
}
/// The same of load_tile32.
template <int kThreads, int kRows, int kColumns, typename F>
__device__ __forceinline__ void for_each_loaded(const Tile32<kRows, kColumns>& tile, const F& f) {
  constexpr int kChunks = kColumns / 4;
  for (int i = static_cast<int>(opaque(threadIdx.x)); i < kRows * kChunks; i += kThreads) {
    f(tile.at(i / kChunks, i % kChunks * 4));
  }
}

template <int kThreads, typename Tile>
__device__ __forceinline__ bool loaded_non_finite(const Tile& tile) {
  bool found = false;
  for_each_loaded<kThreads>(tile,
                            [&](const auto* chunk) { found = found || has_non_finite(chunk); });
  return found;
}

/// A barrier; where a step is `cut`, that is, hides pairs, it tells every thread whether any found
/// such a number.
template <typename Find>
__device__ __forceinline__ bool sync_and_find(bool cut, const Find& find) {
  if (cut) return __syncthreads_or(find()) != 0;
  __syncthreads();
  return false;
}

/// Sets them to 0.
template <int kThreads, typename Tile>
__device__ __forceinline__ void clear_non_finite(const Tile& tile) {
  for_each_loaded<kThreads>(tile, [](auto* chunk) {
    if (!has_non_finite(chunk)) return;
    for (int i = 0; i < 16 / static_cast<int>(sizeof(*chunk)); ++i) {
      if (!is_finite(to_float(chunk[i]))) store_rounded(chunk + i, 0.0f);
    }
  });
}

/// f(row, seen) for each row of the tile with such a number; bit r of seen says sees(r, row), for
/// the kOwn rows r of a result.
template <int kOwn, typename Tile, typename Sees, typename F>
__device__ __forceinline__ void for_each_non_finite_row(const Tile& tile, const Sees& sees,
                                                        const F& f) {
  static_assert(kOwn <= 64);
  constexpr int kChunk = 16 / static_cast<int>(sizeof(typename Tile::T));
#pragma unroll 1
  for (int row = 0; row < Tile::kRows; ++row) {
    bool found = false;
#pragma unroll 1
    for (int column = 0; column < Tile::kColumns; column += kChunk) {
      found = found || has_non_finite(tile.chunk(row, column));
    }
    if (!found) continue;
    uint64_t seen = 0;
#pragma unroll 1
    for (int r = 0; r < kOwn; ++r) seen |= static_cast<uint64_t>(sees(r, row)) << r;
    f(row, seen);
  }
}

/// For results that are sums of weights times rows of the tile: adds these numbers alone to the
/// rows that see them.
template <int kOwn, typename Result, typename Tile, typename Sees>
__device__ __forceinline__ void add_non_finite(Result& result, const Tile& tile, const Sees& sees) {
  constexpr int kChunk = 16 / static_cast<int>(sizeof(typename Tile::T));
  for_each_non_finite_row<kOwn>(tile, sees, [&](int row, uint64_t seen) {
    for_each_number(result, [&](int r, int column, float& number) {
      const float x = to_float(tile.chunk(row, column / kChunk * kChunk)[column % kChunk]);
      if ((seen >> r & 1) != 0 && !is_finite(x)) number += x;
    });
  });
}

/// Where all that a row of the tile touches is lost: makes the rows that see it NaN.
template <int kOwn, typename Result, typename Tile, typename Sees>
__device__ __forceinline__ void spoil(Result& result, const Tile& tile, const Sees& sees) {
  for_each_non_finite_row<kOwn>(tile, sees, [&](int, uint64_t seen) {
    for_each_number(result, [&](int r, int, float& number) {
      if ((seen >> r & 1) != 0) number = kInfinity - kInfinity;
    });
  });
}

}  // namespace nanoflex::cuda
