// dq: a block owns query rows and runs over the keys, as in the forward kernel.
#pragma once

#include "attention/cuda/dropout.cuh"
#include "attention/cuda/flash_backward.cuh"
#include "attention/cuda/keys.cuh"
#include "attention/cuda/non_finite.cuh"
#include "attention/cuda/shapes.h"
#include "attention/cuda/steps.cuh"
#include "attention/cuda/work.cuh"

namespace nanoflex::cuda {

template <typename T_, int kHeadSize_, Shape kShape>
struct BackwardQueriesConfig {
  using T = T_;
  static constexpr int kHeadSize = kHeadSize_, kD = padded_head_size(kHeadSize);
  static constexpr int kKeys = kShape.columns, kWarps = kShape.warps, kThreads = 32 * kWarps;
  static constexpr int kRowTiles = kShape.row_tiles, kStages = kShape.stages;
  static constexpr int kRows = 16 * kRowTiles * kWarps;
  using QueryTile = SharedTile<T, kRows, kD>;
  using KeyTile = SharedTile<T, kKeys, kD>;
  static constexpr int kSharedBytes = backward_queries_shared_bytes(kD, kShape, sizeof(T));
};

template <typename Config, bool kDropout, typename Program>
struct BackwardQueriesWarp {
  static constexpr int R = Config::kRowTiles, C = Config::kKeys / 8, kColumns = Config::kD / 8;
  const BackwardParams& params;
  const AttentionParams& p;
  const Program& program;
  Band band;
  int b, h, first_row;
  float shift[R][2], delta[R][2];
  float dq[R][kColumns][4];

  __device__ __forceinline__ BackwardQueriesWarp(const BackwardParams& params,
                                                 const Program& program, int b, int h,
                                                 int block_row)
      : params(params),
        p(params.attention),
        program(program),
        band(params.attention),
        b(b),
        h(h),
        first_row(block_row + warp_index() * 16 * R) {
    fill(dq, 0);
    const int64_t start = (static_cast<int64_t>(b) * p.H + h) * p.T;
#pragma unroll
    for (int i = 0; i < R; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int r = row(i, half);
        shift[i][half] = r < p.T ? params.shift[start + r] : kInfinity;
        delta[i][half] = r < p.T ? params.delta[start + r] : 0.0f;
      }
    }
  }

  __device__ __forceinline__ int row(int i, int half) const {
    return first_row + 16 * i + 8 * half + lane_index() / 4;
  }
  __device__ __forceinline__ bool idle(int first_key) const {
    return first_row >= p.T ||
           band.none(first_row, first_row + 16 * R - 1, first_key, first_key + Config::kKeys - 1);
  }

  /// A bit for each of the lane's elements that the program's mask lets attend.
  __device__ __forceinline__ void ask_program(uint32_t (&seen)[R], int first_key) const {
    static_assert(4 * C <= 32);
    const int key = first_key + lane_index() % 4 * 2;
#pragma unroll
    for (int i = 0; i < R; ++i) {
      seen[i] = 0;
#pragma unroll
      for (int j = 0; j < C; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const bool one = program.mask(b, h, band.program_position(row(i, e / 2)),
                                        band.program_key(key + 8 * j + e % 2));
          seen[i] |= one ? 1u << (4 * j + e) : 0;
        }
      }
    }
  }

  /// Keeps a step's keys that are not finite from the rows that do not see them.
  __device__ __forceinline__ void part_non_finite(const typename Config::KeyTile& keys,
                                                  int first_key) {
    spoil<16 * R>(dq, keys, [&](int r, int column) {
      return sees_key(band, program, b, h, first_row + r, first_key + column);
    });
    __syncthreads();
    clear_non_finite<Config::kThreads>(keys);
    __syncthreads();
  }

  /// s becomes the weights (not needed), dp becomes ds / scale.
  template <bool kMasked>
  __device__ __forceinline__ void to_ds(float (&s)[R][C][4], float (&dp)[R][C][4], int first_key,
                                        const uint32_t (&seen_bits)[R]) const {
    const BackwardElement<Program, true> element = {p, program};
#pragma unroll
    for (int i = 0; i < R; ++i) {
#pragma unroll
      for (int j = 0; j < C; ++j) {
        bool keep[4] = {true, true, true, true};
        if constexpr (kDropout) {
          keep_of_rows(keep, p, b * p.H + h, row(i, 0), first_key + 8 * j);
        }
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int r = row(i, e / 2), kv = first_key + 8 * j + lane_index() % 4 * 2 + e % 2;
          bool seen = !kMasked || band.sees(r, kv);
          if constexpr (Program::kHasMask) seen = seen && (seen_bits[i] >> (4 * j + e) & 1) != 0;
          element(s[i][j][e], dp[i][j][e], seen, keep[e], shift[i][e / 2], delta[i][e / 2], b, h,
                  band.program_position(r), band.program_key(kv));
        }
      }
    }
  }

  __device__ __forceinline__ void step(const typename Config::QueryTile& queries,
                                       const typename Config::QueryTile& d_outputs,
                                       const typename Config::KeyTile& keys,
                                       const typename Config::KeyTile& values, int first_key,
                                       bool is_cut) {
    if (idle(first_key)) return;
    float s[R][C][4], dp[R][C][4];
    fill(s, 0);
    fill(dp, 0);
    multiply_transposed<Config::kD>(s, queries, warp_index() * 16 * R, keys);
    multiply_transposed<Config::kD>(dp, d_outputs, warp_index() * 16 * R, values);
    uint32_t seen_bits[R];
#pragma unroll
    for (int i = 0; i < R; ++i) seen_bits[i] = ~0u;
    if constexpr (Program::kHasMask) {
      if (is_cut) ask_program(seen_bits, first_key);
    }
    const bool whole =
        band.all(first_row, first_row + 16 * R - 1, first_key, first_key + Config::kKeys - 1);
    if (!Program::kHasMask && !Program::kHasScore && whole) {
      to_ds<false>(s, dp, first_key, seen_bits);
    } else {
      to_ds<true>(s, dp, first_key, seen_bits);
    }
    multiply_registers(dq, dp, keys);
  }
};

template <typename Config, bool kDropout, typename Program>
__device__ __forceinline__ void flash_backward_queries(const BackwardParams& params,
                                                       const Program& program) {
  using T = typename Config::T;
  const AttentionParams& p = params.attention;
  T* shared = reinterpret_cast<T*>(dynamic_shared);
  const Work work = work_of(static_cast<int>(blockIdx.x), p.B, p.H,
                            (p.T + Config::kRows - 1) / Config::kRows, p.heads_per_section);
  const int first_row = work.block * Config::kRows, rows = min(Config::kRows, p.T - first_row);
  const typename Config::QueryTile queries = {shared};
  const typename Config::QueryTile d_outputs = {shared + Config::QueryTile::kElements};
  const KeyLoader<Config> loader(p, work.b, work.h / (p.H / p.H_kv),
                                 shared + 2 * Config::QueryTile::kElements);
  BackwardQueriesWarp<Config, kDropout, Program> warp(params, program, work.b, work.h, first_row);
  const BlocksOfRange<Config::kKeys> blocks(warp.band.keys(first_row, first_row + rows - 1));

  auto steps = steps_of<Program>(blocks.count(), [&](int step) {
    const int first_key = blocks.at(step) * Config::kKeys;
    return sight(program.blocks(), {.b = work.b,
                                    .first_head = work.h,
                                    .heads = 1,
                                    .first_row = first_row,
                                    .last_row = first_row + rows - 1,
                                    .first_key = first_key,
                                    .last_key = min(first_key + Config::kKeys, p.S) - 1});
  });
  const auto load = [&](int i, int step) {
    loader.load_keys(i, blocks.at(step) * Config::kKeys);
    loader.load_values(i, blocks.at(step) * Config::kKeys);
    cp_async_commit();
  };
  if (steps.has(0)) {
    const auto load_own = [&](const typename Config::QueryTile& tile, const void* x,
                              const Strides& strides) {
      const T* source = static_cast<const T*>(x) + work.b * strides.b + work.h * strides.h;
      load_tile<Config::kThreads>(tile, source + first_row * strides.t, strides.t, rows,
                                  Config::kHeadSize);
    };
    load_own(queries, p.q, p.q_strides);
    load_own(d_outputs, params.d_o, params.d_o_strides);
    load(0, steps.here(0));
  }
  for (int i = 0; steps.has(i); ++i, steps.advance()) {
    const int first_key = blocks.at(steps.here(i)) * Config::kKeys;
    cp_async_wait<0>();
    const bool cut = steps.is_cut() || !warp.band.all(first_row, first_row + Config::kRows - 1,
                                                      first_key, first_key + Config::kKeys - 1);
    const bool non_finite =
        sync_and_find(cut, [&] { return loaded_non_finite<Config::kThreads>(loader.keys(i)); });
    if (non_finite) warp.part_non_finite(loader.keys(i), first_key);
    if (Config::kStages > 1 && steps.has_next(i)) load(i + 1, steps.next(i));
    warp.step(queries, d_outputs, loader.keys(i), loader.values(i), first_key, steps.is_cut());
    if constexpr (Config::kStages == 1) {
      __syncthreads();
      if (steps.has_next(i)) load(i + 1, steps.next(i));
    }
  }
  multiply_by(warp.dq, p.scale);
  T* dq = static_cast<T*>(params.dq) + work.b * params.dq_strides.b + work.h * params.dq_strides.h +
          first_row * params.dq_strides.t;
  store_rows(warp.dq, queries, warp_index() * 16 * Config::kRowTiles, rows, Config::kHeadSize,
             [&](int r) { return dq + r * params.dq_strides.t; });
}

}  // namespace nanoflex::cuda
