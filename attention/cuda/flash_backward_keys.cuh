// dk and dv: a block owns keys, a warp 16 of them, and runs over the queries of all heads that
// share the key head. Scores are computed transposed, keys along the rows, so that weights and ds
// are left operands of the products for dv and dk without leaving registers.
#pragma once

#include "attention/cuda/dropout.cuh"
#include "attention/cuda/flash_backward.cuh"
#include "attention/cuda/non_finite.cuh"
#include "attention/cuda/shapes.h"
#include "attention/cuda/steps.cuh"
#include "attention/cuda/work.cuh"

namespace nanoflex::cuda {

/// With kDk or kDv alone, registers suffice for large heads.
template <typename T_, int kHeadSize_, Shape kShape, bool kDk_, bool kDv_>
struct BackwardKeysConfig {
  using T = T_;
  static constexpr int kHeadSize = kHeadSize_, kD = padded_head_size(kHeadSize);
  static constexpr int kQueries = kShape.columns, kWarps = kShape.warps, kStages = kShape.stages;
  static constexpr int kThreads = 32 * kWarps, kKeys = 16 * kWarps;
  static_assert(kShape.row_tiles == 1);
  static constexpr bool kDk = kDk_, kDv = kDv_;
  using QueryTile = SharedTile<T, kQueries, kD>;
  using KeyTile = SharedTile<T, kKeys, kD>;
  static constexpr int kStageBytes = 2 * QueryTile::kElements * static_cast<int>(sizeof(T)) +
                                     2 * kQueries * static_cast<int>(sizeof(float));
  static constexpr int kKeyBytes = 2 * KeyTile::kElements * static_cast<int>(sizeof(T));
  static constexpr int kSharedBytes = backward_keys_shared_bytes(kD, kShape, sizeof(T));
  static_assert(kSharedBytes == kKeyBytes + kStages * kStageBytes);
};

/// What a step reads of its queries.
template <typename Config>
struct QueryStage {
  typename Config::QueryTile queries, d_outputs;
  float *shift, *delta;

  __device__ __forceinline__ QueryStage(unsigned char* shared, int i) {
    unsigned char* start = shared + Config::kKeyBytes + i % Config::kStages * Config::kStageBytes;
    queries.data = reinterpret_cast<typename Config::T*>(start);
    d_outputs.data = queries.data + Config::QueryTile::kElements;
    shift = reinterpret_cast<float*>(d_outputs.data + Config::QueryTile::kElements);
    delta = shift + Config::kQueries;
  }

  __device__ __forceinline__ void load(const BackwardParams& params, int b, int h,
                                       int first_row) const {
    using T = typename Config::T;
    const AttentionParams& p = params.attention;
    const int rows = min(Config::kQueries, p.T - first_row);
    const auto load_queries = [&](const typename Config::QueryTile& tile, const void* x,
                                  const Strides& strides) {
      const T* source = static_cast<const T*>(x) + b * strides.b + h * strides.h;
      load_tile<Config::kThreads>(tile, source + first_row * strides.t, strides.t, rows,
                                  Config::kHeadSize);
    };
    load_queries(queries, p.q, p.q_strides);
    load_queries(d_outputs, params.d_o, params.d_o_strides);
    const int64_t start = (static_cast<int64_t>(b) * p.H + h) * p.T + first_row;
    for (int r = static_cast<int>(threadIdx.x); r < Config::kQueries; r += Config::kThreads) {
      shift[r] = r < rows ? params.shift[start + r] : kInfinity;
      delta[r] = r < rows ? params.delta[start + r] : 0.0f;
    }
    cp_async_commit();
  }
};

template <typename Config, bool kDropout, typename Program>
struct BackwardKeysWarp {
  static constexpr int C = Config::kQueries / 8, kColumns = Config::kD / 8;
  const AttentionParams& p;
  const Program& program;
  Band band;
  int b, first_key;
  float dk[1][kColumns][4], dv[1][kColumns][4];

  __device__ __forceinline__ BackwardKeysWarp(const AttentionParams& p, const Program& program,
                                              int b, int block_key)
      : p(p), program(program), band(p), b(b), first_key(block_key + warp_index() * 16) {
    if constexpr (Config::kDk) fill(dk, 0);
    if constexpr (Config::kDv) fill(dv, 0);
  }

  /// A bit for each of the lane's elements that the program's mask lets attend.
  __device__ __forceinline__ uint32_t seen_by_program(int h, int first_row) const {
    static_assert(4 * C <= 32);
    const int key = first_key + lane_index() / 4, row = first_row + lane_index() % 4 * 2;
    uint32_t bits = 0;
#pragma unroll
    for (int j = 0; j < C; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const bool seen = program.mask(b, h, band.program_position(row + 8 * j + e % 2),
                                       band.program_key(key + e / 2 * 8));
        bits |= seen ? 1u << (4 * j + e) : 0;
      }
    }
    return bits;
  }

  /// Keeps a step's numbers that are not finite from the keys that do not see them.
  __device__ __forceinline__ void part_non_finite(const QueryStage<Config>& stage, int h,
                                                  int first_row) {
    const auto sees = [&](int r, int column) {
      return sees_key(band, program, b, h, first_row + column, first_key + r);
    };
    const auto spoil_by = [&](const typename Config::QueryTile& tile) {
      if constexpr (Config::kDk) spoil<16>(dk, tile, sees);
      if constexpr (Config::kDv) spoil<16>(dv, tile, sees);
    };
    spoil_by(stage.queries);
    spoil_by(stage.d_outputs);
    __syncthreads();
    clear_non_finite<Config::kThreads>(stage.queries);
    clear_non_finite<Config::kThreads>(stage.d_outputs);
    __syncthreads();
  }

  /// s becomes the dropped weights, dp becomes ds / scale; rows are keys.
  template <bool kMasked>
  __device__ __forceinline__ void to_ds(float (&s)[1][C][4], float (&dp)[1][C][4],
                                        const QueryStage<Config>& stage, int h, int first_row,
                                        uint32_t seen_bits) const {
    const BackwardElement<Program, true> element = {p, program};
    const int key = first_key + lane_index() / 4;
#pragma unroll
    for (int j = 0; j < C; ++j) {
      const int column = 8 * j + lane_index() % 4 * 2;
      const float2 shift = *reinterpret_cast<const float2*>(stage.shift + column);
      float2 delta = make_float2(0, 0);
      if constexpr (Config::kDk) delta = *reinterpret_cast<const float2*>(stage.delta + column);
      bool keep[4] = {true, true, true, true};
      if constexpr (kDropout) keep_of_columns(keep, p, b * p.H + h, key, first_row + 8 * j);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = first_row + column + e % 2, kv = key + e / 2 * 8;
        bool seen = !kMasked || band.sees(row, kv);
        if constexpr (Program::kHasMask) seen = seen && (seen_bits >> (4 * j + e) & 1) != 0;
        // The shift hides rows beyond the last only from scores that are numbers.
        if constexpr (Program::kHasScore) seen = seen && row < p.T;
        element(s[0][j][e], dp[0][j][e], seen, keep[e], e % 2 ? shift.y : shift.x,
                e % 2 ? delta.y : delta.x, b, h, band.program_position(row), band.program_key(kv));
      }
    }
  }

  __device__ __forceinline__ void step(const typename Config::KeyTile& keys,
                                       const typename Config::KeyTile& values,
                                       const QueryStage<Config>& stage, int h, int first_row,
                                       bool is_cut) {
    const int last_row = first_row + Config::kQueries - 1, last_key = first_key + 15;
    if (band.none(first_row, last_row, first_key, last_key)) return;
    float s[1][C][4], dp[1][C][4];
    fill(s, 0);
    fill(dp, 0);
    multiply_transposed<Config::kD>(s, keys, warp_index() * 16, stage.queries);
    if constexpr (Config::kDk) {
      multiply_transposed<Config::kD>(dp, values, warp_index() * 16, stage.d_outputs);
    }
    uint32_t seen_bits = ~0u;
    if constexpr (Program::kHasMask) {
      if (is_cut) seen_bits = seen_by_program(h, first_row);
    }
    const bool whole = band.all(first_row, last_row, first_key, last_key);
    if (!Program::kHasMask && !Program::kHasScore && whole) {
      to_ds<false>(s, dp, stage, h, first_row, seen_bits);
    } else {
      to_ds<true>(s, dp, stage, h, first_row, seen_bits);
    }
    if constexpr (Config::kDv) multiply_registers(dv, s, stage.d_outputs);
    if constexpr (Config::kDk) multiply_registers(dk, dp, stage.queries);
  }
};

template <typename Config, bool kDropout, typename Program>
__device__ __forceinline__ void flash_backward_keys(const BackwardParams& params,
                                                    const Program& program) {
  using T = typename Config::T;
  const AttentionParams& p = params.attention;
  const int key_blocks = (p.S + Config::kKeys - 1) / Config::kKeys;
  const int key_heads = p.H_kv * params.head_parts, group = p.H / key_heads;
  const Work work =
      work_of(static_cast<int>(blockIdx.x), p.B, key_heads, key_blocks, p.heads_per_section);
  // Under a causal mask the first keys are seen by most queries.
  const int first_key = (key_blocks - 1 - work.block) * Config::kKeys;
  const int rows = min(Config::kKeys, p.S - first_key);
  const typename Config::KeyTile keys = {reinterpret_cast<T*>(dynamic_shared)};
  const typename Config::KeyTile values = {keys.data + Config::KeyTile::kElements};
  BackwardKeysWarp<Config, kDropout, Program> warp(p, program, work.b, first_key);
  const BlocksOfRange<Config::kQueries> blocks(warp.band.rows(first_key, first_key + rows - 1));

  // Step i: query block i % count of the group's head i / count.
  const int count = blocks.count();
  const auto head = [&](int step) { return work.h * group + step / count; };
  const auto first_row = [&](int step) { return blocks.at(step % count) * Config::kQueries; };
  auto steps = steps_of<Program>(count * group, [&](int step) {
    return sight(program.blocks(), {.b = work.b,
                                    .first_head = head(step),
                                    .heads = 1,
                                    .first_row = first_row(step),
                                    .last_row = min(first_row(step) + Config::kQueries, p.T) - 1,
                                    .first_key = first_key,
                                    .last_key = first_key + rows - 1});
  });
  const auto load = [&](int i, int step) {
    QueryStage<Config>(dynamic_shared, i).load(params, work.b, head(step), first_row(step));
  };
  if (steps.has(0)) {
    const auto load_own = [&](const typename Config::KeyTile& tile, const void* x,
                              const Strides& strides) {
      const T* source =
          static_cast<const T*>(x) + work.b * strides.b + work.h / params.head_parts * strides.h;
      load_tile<Config::kThreads>(tile, source + first_key * strides.t, strides.t, rows,
                                  Config::kHeadSize);
    };
    load_own(keys, p.k, p.k_strides);
    if constexpr (Config::kDk) load_own(values, p.v, p.v_strides);
    load(0, steps.here(0));
  }
  for (int i = 0; steps.has(i); ++i, steps.advance()) {
    const int step = steps.here(i);
    const QueryStage<Config> stage(dynamic_shared, i);
    cp_async_wait<0>();
    const bool cut =
        steps.is_cut() || !warp.band.all(first_row(step), first_row(step) + Config::kQueries - 1,
                                         first_key, first_key + Config::kKeys - 1);
    const bool non_finite = sync_and_find(cut, [&] {
      return loaded_non_finite<Config::kThreads>(stage.queries) ||
             loaded_non_finite<Config::kThreads>(stage.d_outputs);
    });
    if (non_finite) warp.part_non_finite(stage, head(step), first_row(step));
    if (Config::kStages > 1 && steps.has_next(i)) load(i + 1, steps.next(i));
    warp.step(keys, values, stage, head(step), first_row(step), steps.is_cut());
    if constexpr (Config::kStages == 1) {
      __syncthreads();
      if (steps.has_next(i)) load(i + 1, steps.next(i));
    }
  }

  const auto store = [&](const auto& c, const typename Config::KeyTile& tile, void* x,
                         const Strides& strides) {
    T* target =
        static_cast<T*>(x) + work.b * strides.b + work.h * strides.h + first_key * strides.t;
    store_rows(c, tile, warp_index() * 16, rows, Config::kHeadSize,
               [&](int r) { return target + r * strides.t; });
  };
  if constexpr (Config::kDk) {
    multiply_by(warp.dk, p.scale);
    store(warp.dk, keys, params.dk, params.dk_strides);
  }
  if constexpr (Config::kDv) {
    multiply_by(warp.dv, kDropout ? p.keep_scale : 1.0f);
    store(warp.dv, values, params.dv, params.dv_strides);
  }
}

}  // namespace nanoflex::cuda
