// FlashAttention-2 forward for 16-bit inputs (Dao, arXiv:2307.08691): a block owns some query rows,
// a warp 16 or 32 of them, and runs over the keys. Scores and weights stay in registers.
#pragma once

#include "attention/cuda/dropout.cuh"
#include "attention/cuda/keys.cuh"
#include "attention/cuda/non_finite.cuh"
#include "attention/cuda/shapes.h"
#include "attention/cuda/softmax.cuh"
#include "attention/cuda/steps.cuh"
#include "attention/cuda/work.cuh"

namespace nanoflex::cuda {

template <typename T_, int kHeadSize_, Shape kShape>
struct ForwardConfig {
  using T = T_;
  static constexpr int kHeadSize = kHeadSize_, kD = padded_head_size(kHeadSize);
  static constexpr int kKeys = kShape.columns, kWarps = kShape.warps, kThreads = 32 * kWarps;
  static constexpr int kRowTiles = kShape.row_tiles, kStages = kShape.stages;
  static constexpr int kRows = 16 * kRowTiles * kWarps;
  using QueryTile = SharedTile<T, kRows, kD>;
  using KeyTile = SharedTile<T, kKeys, kD>;
  static constexpr int kSharedBytes = forward_shared_bytes(kD, kShape, sizeof(T));
};

/// What an instance can do, so that what it need not do costs nothing.
template <bool kDropout_, bool kPacked_ = false, bool kSplit_ = false>
struct ForwardFeatures {
  static constexpr bool kDropout = kDropout_;  ///< not together with kPacked
  static constexpr bool kPacked = kPacked_;    ///< rows of all heads that share a key head
  static constexpr bool kSplit = kSplit_;      ///< keys split over blockIdx.y; see flash_decode.cuh
};

/// One warp's rows in one block of work.
template <typename Config, typename Features, typename Program>
struct ForwardWarp {
  static constexpr int R = Config::kRowTiles, C = Config::kKeys / 8, kColumns = Config::kD / 8;
  const AttentionParams& p;
  const Program& program;
  const QueryRows<Features::kPacked>& rows;
  const Band& band;
  int b, block_row, first_row, first_query, last_query;
  OnlineSoftmax<R> softmax;
  float o[R][kColumns][4];

  __device__ __forceinline__ ForwardWarp(const AttentionParams& p, const Program& program,
                                         const QueryRows<Features::kPacked>& rows, const Band& band,
                                         int b, int block_row)
      : p(p),
        program(program),
        rows(rows),
        band(band),
        b(b),
        block_row(block_row),
        first_row(block_row + warp_index() * 16 * R),
        first_query(rows.query(first_row)),
        last_query(rows.query(first_row + 16 * R - 1)) {
    fill(o, 0);
  }

  __device__ __forceinline__ int row(int i, int half) const {
    return first_row + 16 * i + 8 * half + lane_index() / 4;
  }

  /// Whether row r of the warp sees a key.
  __device__ __forceinline__ bool sees(int r, int key) const {
    return sees_key(band, program, b, rows.head(first_row + r), rows.query(first_row + r), key);
  }
  /// Whether rows of the block may differ in which of a step's keys they see.
  __device__ __forceinline__ bool cuts(int first_key) const {
    const int last_row = block_row + Config::kRows - 1;
    return !band.all(rows.query(block_row), rows.query(last_row), first_key,
                     first_key + Config::kKeys - 1);
  }

  /// Scores are in s as q k^T; a program's are scaled, and then no factor is left for softmax.
  __device__ __forceinline__ float factor() const {
    return Program::kHasScore ? kLog2E : p.scale * kLog2E;
  }

  /// Scaled and changed scores; those that the program's mask hides are -inf.
  __device__ __forceinline__ void run_program(float (&s)[R][C][4], int first_key,
                                              bool is_cut) const {
    const int first = row(0, 0), key = first_key + lane_index() % 4 * 2;
    if constexpr (Program::kHasScore) {
      for_each_offset(s, [&](int r, int column, float& value) {
        const int q = band.program_position(rows.query(first + r));
        value = program.score(__fmul_rn(value, p.scale), b, rows.head(first + r), q,
                              band.program_key(key + column));
      });
    }
    if constexpr (Program::kHasMask) {
      if (!is_cut) return;
      for_each_offset(s, [&](int r, int column, float& value) {
        const int q = band.program_position(rows.query(first + r));
        const bool seen = program.mask(b, rows.head(first + r), q, band.program_key(key + column));
        value = seen ? value : -kInfinity;
      });
    }
  }

  __device__ __forceinline__ void hide_outside_band(float (&s)[R][C][4], int first_key) const {
    if (band.all(first_query, last_query, first_key, first_key + Config::kKeys - 1)) return;
#pragma unroll
    for (int i = 0; i < R; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int q = band.position(rows.query(row(i, half)));
        const int key = first_key + lane_index() % 4 * 2;
        // Seen are column offsets low .. high.
        const int low = q - band.left - key, high = min(q + band.right, band.S - 1) - key;
#pragma unroll
        for (int j = 0; j < C; ++j) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int column = 8 * j + e;
            float& value = s[i][j][2 * half + e];
            if (column < low || column > high) value = -kInfinity;
          }
        }
      }
    }
  }

  __device__ __forceinline__ void drop(float (&weights)[R][C][4], int first_key) const {
#pragma unroll
    for (int i = 0; i < R; ++i) {
#pragma unroll
      for (int j = 0; j < C; ++j) {
        bool keep[4];
        keep_of_rows(keep, p, b * p.H + rows.first_head, row(i, 0), first_key + 8 * j);
#pragma unroll
        for (int e = 0; e < 4; ++e) weights[i][j][e] = keep[e] ? weights[i][j][e] : 0.0f;
      }
    }
  }

  __device__ __forceinline__ void store_logsumexp(float* logsumexp) const {
    if (lane_index() % 4 != 0) return;
#pragma unroll
    for (int i = 0; i < R; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int r = row(i, half);
        if (r >= rows.count()) continue;
        const int64_t head = static_cast<int64_t>(b) * p.H + rows.head(r);
        logsumexp[head * p.T + rows.query(r)] = softmax.maximum[i][half];
      }
    }
  }

  /// As fp32, for flash_decode.cuh to combine.
  __device__ __forceinline__ void store_partial(float* partial) const {
#pragma unroll
    for (int i = 0; i < R; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int r = row(i, half);
        if (r >= rows.count()) continue;
        const int64_t head = static_cast<int64_t>(b) * p.H + rows.head(r);
        float* target = partial + (head * p.T + rows.query(r)) * Config::kD + lane_index() % 4 * 2;
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
          *reinterpret_cast<float2*>(target + 8 * j) =
              make_float2(o[i][j][2 * half], o[i][j][2 * half + 1]);
        }
      }
    }
  }
};

/// The loop over key blocks. With one stage, values arrive while scores are computed and the next
/// keys while values are used; with two, a block of both arrives while another is used.
/// `Steps`: see steps.cuh.
template <typename Config, typename Features, typename Program, typename Steps>
__device__ __forceinline__ void run_over_keys(ForwardWarp<Config, Features, Program>& warp,
                                              const KeyLoader<Config>& loader,
                                              const typename Config::QueryTile& queries,
                                              const BlocksOfRange<Config::kKeys>& blocks,
                                              Steps steps) {
  constexpr int kKeys = Config::kKeys;
  using Warp = ForwardWarp<Config, Features, Program>;
  loader.load_keys(0, blocks.at(steps.here(0)) * kKeys);
  if constexpr (Config::kStages > 1) loader.load_values(0, blocks.at(steps.here(0)) * kKeys);
  cp_async_commit();
  for (int i = 0; steps.has(i); ++i, steps.advance()) {
    const int first_key = blocks.at(steps.here(i)) * kKeys;
    const bool more = steps.has_next(i), cut = steps.is_cut() || warp.cuts(first_key);
    const auto find = [&] { return loaded_non_finite<Config::kThreads>(loader.values(i)); };
    cp_async_wait<0>();
    bool non_finite = sync_and_find(Config::kStages > 1 && cut, find);
    if constexpr (Config::kStages > 1) {
      if (more) {
        loader.load_keys(i + 1, blocks.at(steps.next(i)) * kKeys);
        loader.load_values(i + 1, blocks.at(steps.next(i)) * kKeys);
      }
    } else {
      loader.load_values(i, first_key);
    }
    cp_async_commit();
    // A warp without rows, or whose rows see none of these keys, only keeps step.
    const bool idle =
        warp.first_row >= warp.rows.count() ||
        warp.band.none(warp.first_query, warp.last_query, first_key, first_key + kKeys - 1);
    float s[Warp::R][Warp::C][4];
    if (!idle) {
      fill(s, 0);
      multiply_transposed<Config::kD>(s, queries, warp_index() * 16 * Warp::R, loader.keys(i));
      if constexpr (Program::kHasMask || Program::kHasScore) {
        warp.run_program(s, first_key, steps.is_cut());
      }
      warp.hide_outside_band(s, first_key);
    }
    if constexpr (Config::kStages == 1) {
      cp_async_wait<0>();
      non_finite = sync_and_find(cut, find);
      if (more) loader.load_keys(i + 1, blocks.at(steps.next(i)) * kKeys);
      cp_async_commit();
    }
    if (!idle) {
      warp.softmax.update(s, warp.o, warp.factor());
      if constexpr (Features::kDropout) warp.drop(s, first_key);
    }
    if (non_finite) {
      add_non_finite<16 * Warp::R>(warp.o, loader.values(i),
                                   [&](int r, int key) { return warp.sees(r, first_key + key); });
      __syncthreads();
      clear_non_finite<Config::kThreads>(loader.values(i));
      __syncthreads();
    }
    if (!idle) multiply_registers(warp.o, s, loader.values(i));
  }
}

template <typename Config, typename Features, typename Program>
__device__ __forceinline__ void flash_forward(const ForwardParams& params, const Program& program) {
  using T = typename Config::T;
  const AttentionParams& p = params.attention;
  T* shared = reinterpret_cast<T*>(dynamic_shared);
  const int heads = Features::kPacked ? p.H_kv : p.H;
  const int all_rows = Features::kPacked ? p.T * (p.H / p.H_kv) : p.T;
  const Work work = work_of(static_cast<int>(blockIdx.x), p.B, heads,
                            (all_rows + Config::kRows - 1) / Config::kRows, p.heads_per_section);
  const QueryRows<Features::kPacked> rows(p, work.h);
  const int first_row = work.block * Config::kRows;
  const int last_row = min(first_row + Config::kRows, rows.count()) - 1;

  const Band band(p);
  BlocksOfRange<Config::kKeys> blocks(band.keys(rows.query(first_row), rows.query(last_row)));
  if constexpr (Features::kSplit) blocks.split(static_cast<int>(blockIdx.y), params.splits);

  const typename Config::QueryTile queries = {shared};
  ForwardWarp<Config, Features, Program> warp(p, program, rows, band, work.b, first_row);
  const auto steps = steps_of<Program>(blocks.count(), [&](int step) {
    const int first_key = blocks.at(step) * Config::kKeys;
    return sight(program.blocks(), {.b = work.b,
                                    .first_head = rows.first_head,
                                    .heads = Features::kPacked ? rows.group : 1,
                                    .first_row = rows.query(first_row),
                                    .last_row = rows.query(last_row),
                                    .first_key = first_key,
                                    .last_key = min(first_key + Config::kKeys, p.S) - 1});
  });
  if (steps.has(0)) {
    load_rows<Config::kThreads>(queries, rows.count() - first_row, Config::kHeadSize, [&](int r) {
      return static_cast<const T*>(p.q) + rows.place(p.q_strides, work.b, first_row + r);
    });
    const KeyLoader<Config> loader(p, work.b, rows.key_head(),
                                   shared + Config::QueryTile::kElements);
    run_over_keys(warp, loader, queries, blocks, steps);
  }
  warp.softmax.finish(warp.o, warp.factor(), Features::kDropout ? p.keep_scale : 1.0f);
  if constexpr (Features::kSplit) {
    const int64_t part = static_cast<int64_t>(blockIdx.y) * p.B * p.H * p.T;
    warp.store_logsumexp(params.partial_logsumexp + part);
    warp.store_partial(params.partial_o + part * Config::kD);
  } else {
    warp.store_logsumexp(params.logsumexp);
    T* o = static_cast<T*>(params.o);
    store_rows(warp.o, queries, warp_index() * 16 * Config::kRowTiles, rows.count() - first_row,
               Config::kHeadSize,
               [&](int r) { return o + rows.place(params.o_strides, work.b, first_row + r); });
  }
}

}  // namespace nanoflex::cuda
