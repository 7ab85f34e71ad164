// Forward for fp32 inputs: scores and weights pass through shared memory.
#pragma once

#include "attention/cuda/mask.cuh"
#include "attention/cuda/non_finite.cuh"
#include "attention/cuda/shapes.h"
#include "attention/cuda/steps.cuh"
#include "attention/cuda/tile32.cuh"
#include "attention/cuda/work.cuh"
#include "attention/philox.h"

namespace nanoflex::cuda {

template <int kHeadSize_, bool kTf32_>
struct Config32 {
  static constexpr int kHeadSize = kHeadSize_, kD = padded_head_size(kHeadSize);
  static constexpr bool kTf32 = kTf32_;
};

/// A row of scores belongs to kThreads32 / kRows neighbouring lanes.
template <int kRows, int kColumns>
struct RowSoftmax {
  static constexpr int kLanes = kThreads32 / kRows;
  float maximum = -kInfinity, sum = 0;

  __device__ static __forceinline__ int row() { return static_cast<int>(threadIdx.x) / kLanes; }
  __device__ __forceinline__ float shift() const { return maximum == -kInfinity ? 0.0f : maximum; }

  /// Scores of this row become weights; returns what rescales earlier results.
  /// keep(column, words) says which of four weights stay.
  template <bool kDropout, typename Keep>
  __device__ __forceinline__ float update(const Tile32<kRows, kColumns>& tile, const Keep& keep) {
    const int first = static_cast<int>(threadIdx.x) % kLanes * 4;
    float largest = maximum;
    for (int column = first; column < kColumns; column += 4 * kLanes) {
      for (int e = 0; e < 4; ++e) largest = fmaxf(largest, *tile.at(row(), column + e));
    }
    for (int i = 1; i < kLanes; i *= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, i));
    }
    const float previous = maximum;
    maximum = largest;
    const float rescale = exp2f((previous - shift()) * kLog2E);
    sum *= rescale;
    for (int column = first; column < kColumns; column += 4 * kLanes) {
      PhiloxWords words = {};
      if constexpr (kDropout) words = keep(column);
      for (int e = 0; e < 4; ++e) {
        float* score = tile.at(row(), column + e);
        const float weight = exp2f((*score - shift()) * kLog2E);
        sum += weight;
        *score = words.word[e] != 0 || !kDropout ? weight : 0.0f;
      }
    }
    return rescale;
  }

  __device__ __forceinline__ float total() const {
    float x = sum;
    for (int i = 1; i < kLanes; i *= 2) x += __shfl_xor_sync(0xffffffff, x, i);
    return x;
  }
};

template <typename Config, bool kDropout, typename Program>
__device__ __forceinline__ void flash_forward_fp32(const ForwardParams& params,
                                                   const Program& program) {
  constexpr Shape32 kShape = forward_shape32(Config::kD);
  constexpr int kRows = kShape.own, kKeys = kShape.visit;
  const AttentionParams& p = params.attention;
  const Work work = work_of(static_cast<int>(blockIdx.x), p.B, p.H, (p.T + kRows - 1) / kRows,
                            p.heads_per_section);
  const int b = work.b, h = work.h, first_row = work.block * kRows;
  const int rows = min(kRows, p.T - first_row);
  const Band band(p);
  const BlocksOfRange<kKeys> blocks(band.keys(first_row, first_row + rows - 1));

  float* shared = reinterpret_cast<float*>(dynamic_shared);
  const Tile32<kRows, Config::kD> queries = {shared};
  const Tile32<kKeys, Config::kD> keys = {queries.data + queries.kElements};
  const Tile32<kKeys, Config::kD> values = {keys.data + keys.kElements};
  const Tile32<kRows, kKeys> weights = {values.data + values.kElements};
  float* row_factor = weights.data + weights.kElements;

  const auto start_of = [&](const void* x, const Strides& strides, int head) {
    return static_cast<const float*>(x) + b * strides.b + head * strides.h;
  };
  const int key_head = h / (p.H / p.H_kv);
  const float* q = start_of(p.q, p.q_strides, h);
  const float* k = start_of(p.k, p.k_strides, key_head);
  const float* v = start_of(p.v, p.v_strides, key_head);
  load_tile32<Config::kHeadSize>(queries, q + first_row * p.q_strides.t, p.q_strides.t, rows);

  RowSoftmax<kRows, kKeys> softmax;
  Accumulator<kRows, Config::kD, Config::kTf32> o;
  auto steps = steps_of<Program>(blocks.count(), [&](int step) {
    const int first_key = blocks.at(step) * kKeys;
    return sight(program.blocks(), {.b = b,
                                    .first_head = h,
                                    .heads = 1,
                                    .first_row = first_row,
                                    .last_row = first_row + rows - 1,
                                    .first_key = first_key,
                                    .last_key = min(first_key + kKeys, p.S) - 1});
  });
  for (int i = 0; steps.has(i); ++i, steps.advance()) {
    const int first_key = blocks.at(steps.here(i)) * kKeys;
    __syncthreads();
    load_tile32<Config::kHeadSize>(keys, k + first_key * p.k_strides.t, p.k_strides.t,
                                   p.S - first_key);
    load_tile32<Config::kHeadSize>(values, v + first_key * p.v_strides.t, p.v_strides.t,
                                   p.S - first_key);
    const bool cut = steps.is_cut() ||
                     !band.all(first_row, first_row + kRows - 1, first_key, first_key + kKeys - 1);
    const auto sees = [&](int r, int column) {
      const int row = first_row + r, kv = first_key + column;
      bool seen = row < p.T && band.sees(row, kv);
      if constexpr (Program::kHasMask) {
        if (steps.is_cut()) seen = seen && program.mask(b, h, band.position(row), kv);
      }
      return seen;
    };
    cp_async_commit();
    cp_async_wait<0>();
    const bool non_finite =
        sync_and_find(cut, [&] { return loaded_non_finite<kThreads32>(values); });
    Accumulator<kRows, kKeys, Config::kTf32> s;
    s.template add<true>(queries, keys);
    s.for_each([&](int r, int column, float& value) {
      const int kv = first_key + column, position = band.position(first_row + r);
      const bool seen = sees(r, column);
      float score = value * p.scale;
      if constexpr (Program::kHasScore) {
        if (seen) score = program.score(__fmul_rn(value, p.scale), b, h, position, kv);
      }
      *weights.at(r, column) = seen ? score : -kInfinity;
    });
    __syncthreads();
    const float rescale = softmax.template update<kDropout>(weights, [&](int column) {
      PhiloxWords words =
          dropout_words(p.seed, b * p.H + h, first_row + softmax.row(), first_key + column);
      for (uint32_t& word : words.word) word = word >= p.dropout_threshold ? 1 : 0;
      return words;
    });
    if (threadIdx.x % softmax.kLanes == 0) row_factor[softmax.row()] = rescale;
    __syncthreads();
    o.for_each([&](int r, int, float& value) { value *= row_factor[r]; });
    if (non_finite) {
      add_non_finite<kRows>(o, values, sees);
      __syncthreads();
      clear_non_finite<kThreads32>(values);
      __syncthreads();
    }
    o.template add<false>(weights, values);
  }
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  const float total = softmax.total(), keep_scale = kDropout ? p.keep_scale : 1.0f;
  const int row = softmax.row();
  if (threadIdx.x % softmax.kLanes == 0) {
    row_factor[row] = total == 0 ? 0.0f : keep_scale / total;
    if (row < rows) {
      const int64_t at = (static_cast<int64_t>(b) * p.H + h) * p.T + first_row + row;
      const float log_sum = total == 0 ? 0.0f : log2f(total) * kLn2;
      params.logsumexp[at] = total == 0 ? -kInfinity : softmax.maximum + log_sum;
      params.denominator[at] = softmax.shift();
      params.denominator[static_cast<int64_t>(p.B) * p.H * p.T + at] = log_sum;
    }
  }
  __syncthreads();
  float* target = static_cast<float*>(params.o) + b * params.o_strides.b + h * params.o_strides.h;
  o.for_each([&](int r, int column, float value) {
    if (r >= rows || column >= Config::kHeadSize) return;
    // 0 times hidden values that are no numbers is none either.
    target[(first_row + r) * params.o_strides.t + column] =
        row_factor[r] == 0 ? 0.0f : value * row_factor[r];
  });
}

}  // namespace nanoflex::cuda
