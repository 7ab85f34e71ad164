// Backward for fp32 inputs. One kernel serves both passes: a block owns queries and computes dq, or
// owns keys, sees every score transposed, and computes dk and dv.
#pragma once

#include "attention/cuda/flash_backward.cuh"
#include "attention/cuda/flash_fp32_forward.cuh"

namespace nanoflex::cuda {

/// The element-wise middle of a step, over four keys of a query at a time: scores and dp in shared
/// memory become dropped weights and ds / scale.
template <bool kKeysOwn, bool kDropout, typename Tile, typename Program>
__device__ __forceinline__ void to_ds32(const BackwardParams& params, const Program& program,
                                        const Tile& s, const Tile& dp, int b, int h, int first_row,
                                        int first_key, bool is_cut) {
  const AttentionParams& p = params.attention;
  const Band band(p);
  const BackwardElement<Program, false> element = {p, program};
  constexpr int kQueries = kKeysOwn ? Tile::kColumns : Tile::kRows;
  constexpr int kKeys = kKeysOwn ? Tile::kRows : Tile::kColumns;
  const int64_t start = (static_cast<int64_t>(b) * p.H + h) * p.T;
  for (int i = static_cast<int>(threadIdx.x); i < kQueries * kKeys / 4; i += kThreads32) {
    const int query = i % kQueries, row = first_row + query, key = i / kQueries * 4;
    const int64_t all = static_cast<int64_t>(p.B) * p.H * p.T;
    const float largest = row < p.T ? params.denominator[start + row] : 0.0f;
    const float log_sum = row < p.T ? params.denominator[all + start + row] : 0.0f;
    const bool has_d_logsumexp = params.d_logsumexp != nullptr && row < p.T;
    const float d_logsumexp = has_d_logsumexp ? params.d_logsumexp[start + row] : 0.0f;
    const float delta = row < p.T ? params.delta[start + row] : 0.0f;
    PhiloxWords words = {};
    if constexpr (kDropout) words = dropout_words(p.seed, b * p.H + h, row, first_key + key);
    for (int e = 0; e < 4; ++e) {
      const int kv = first_key + key + e, position = band.position(row);
      const bool keep = !kDropout || words.word[e] >= p.dropout_threshold;
      bool seen = row < p.T && band.sees(row, kv);
      if constexpr (Program::kHasMask) {
        if (is_cut) seen = seen && program.mask(b, h, position, kv);
      }
      float* score = kKeysOwn ? s.at(key + e, query) : s.at(query, key + e);
      float* d_weight = kKeysOwn ? dp.at(key + e, query) : dp.at(query, key + e);
      element(*score, *d_weight, seen, keep, largest, delta, b, h, band.program_position(row),
              band.program_key(kv), log_sum, d_logsumexp);
    }
  }
}

/// kKeysOwn: dk and dv; else dq.
template <typename Config, bool kKeysOwn, bool kDropout, typename Program>
__device__ __forceinline__ void flash_backward_fp32(const BackwardParams& params,
                                                    const Program& program) {
  constexpr Shape32 kShape = backward_shape32(Config::kD);
  constexpr int kOwn = kShape.own, kVisit = kShape.visit;
  const AttentionParams& p = params.attention;
  const int key_heads = p.H_kv * params.head_parts, length = kKeysOwn ? p.S : p.T;
  const int own_blocks = (length + kOwn - 1) / kOwn;
  const Work work = work_of(static_cast<int>(blockIdx.x), p.B, kKeysOwn ? key_heads : p.H,
                            own_blocks, p.heads_per_section);
  const int b = work.b;
  const int first_own = (kKeysOwn ? own_blocks - 1 - work.block : work.block) * kOwn;
  const int own = min(kOwn, length - first_own);
  const Band band(p);
  const BlocksOfRange<kVisit> blocks(kKeysOwn ? band.rows(first_own, first_own + own - 1)
                                              : band.keys(first_own, first_own + own - 1));

  // Own and visited: q and do, or k and v.
  float* shared = reinterpret_cast<float*>(dynamic_shared);
  const Tile32<kOwn, Config::kD> own_a = {shared}, own_b = {shared + own_a.kElements};
  const Tile32<kVisit, Config::kD> visit_a = {own_b.data + own_b.kElements};
  const Tile32<kVisit, Config::kD> visit_b = {visit_a.data + visit_a.kElements};
  const Tile32<kOwn, kVisit> s_tile = {visit_b.data + visit_b.kElements};
  const Tile32<kOwn, kVisit> dp_tile = {s_tile.data + s_tile.kElements};
  const auto load_queries = [&](const auto& a, const auto& b_tile, int h, int first) {
    const float* q = static_cast<const float*>(p.q) + b * p.q_strides.b + h * p.q_strides.h;
    const float* d_o =
        static_cast<const float*>(params.d_o) + b * params.d_o_strides.b + h * params.d_o_strides.h;
    load_tile32<Config::kHeadSize>(a, q + first * p.q_strides.t, p.q_strides.t, p.T - first);
    load_tile32<Config::kHeadSize>(b_tile, d_o + first * params.d_o_strides.t, params.d_o_strides.t,
                                   p.T - first);
  };
  const auto load_keys = [&](const auto& a, const auto& b_tile, int h, int first) {
    const float* k = static_cast<const float*>(p.k) + b * p.k_strides.b + h * p.k_strides.h;
    const float* v = static_cast<const float*>(p.v) + b * p.v_strides.b + h * p.v_strides.h;
    load_tile32<Config::kHeadSize>(a, k + first * p.k_strides.t, p.k_strides.t, p.S - first);
    load_tile32<Config::kHeadSize>(b_tile, v + first * p.v_strides.t, p.v_strides.t, p.S - first);
  };
  if constexpr (kKeysOwn) {
    load_keys(own_a, own_b, work.h / params.head_parts, first_own);
  } else {
    load_queries(own_a, own_b, work.h, first_own);
  }

  Accumulator<kOwn, Config::kD, Config::kTf32> d_a, d_b;  // dk and dv; or dq and nothing
  const auto head = [&](int step) {
    return kKeysOwn ? work.h * (p.H / key_heads) + step / blocks.count() : work.h;
  };
  const auto first_of = [&](int step) { return blocks.at(step % blocks.count()) * kVisit; };
  const int all_steps = blocks.count() * (kKeysOwn ? p.H / key_heads : 1);
  auto steps = steps_of<Program>(all_steps, [&](int step) {
    const int first = first_of(step), last = min(first + kVisit, kKeysOwn ? p.T : p.S) - 1;
    const int last_own = first_own + own - 1;
    return sight(program.blocks(), {.b = b,
                                    .first_head = head(step),
                                    .heads = 1,
                                    .first_row = kKeysOwn ? first : first_own,
                                    .last_row = kKeysOwn ? last : last_own,
                                    .first_key = kKeysOwn ? first_own : first,
                                    .last_key = kKeysOwn ? last_own : last});
  });
  // Keeps a step's numbers that are not finite from the own rows that do not see them.
  const auto part_non_finite = [&](int first, int h) {
    const auto sees = [&](int r, int column) {
      const int row = kKeysOwn ? first + column : first_own + r;
      const int kv = kKeysOwn ? first_own + r : first + column;
      return sees_key(band, program, b, h, row, kv);
    };
    spoil<kOwn>(d_a, visit_a, sees);
    if constexpr (kKeysOwn) {
      spoil<kOwn>(d_b, visit_a, sees);
      spoil<kOwn>(d_a, visit_b, sees);
      spoil<kOwn>(d_b, visit_b, sees);
    }
    __syncthreads();
    clear_non_finite<kThreads32>(visit_a);
    if constexpr (kKeysOwn) clear_non_finite<kThreads32>(visit_b);
    __syncthreads();
  };
  for (int i = 0; steps.has(i); ++i, steps.advance()) {
    const int first = first_of(steps.here(i)), h = head(steps.here(i));
    __syncthreads();
    if constexpr (kKeysOwn) {
      load_queries(visit_a, visit_b, h, first);
    } else {
      load_keys(visit_a, visit_b, h / (p.H / p.H_kv), first);
    }
    cp_async_commit();
    cp_async_wait<0>();
    // What all own rows see alike may be summed as it is.
    const int last = first + kVisit - 1, last_own = first_own + kOwn - 1;
    const bool cut = steps.is_cut() || !(kKeysOwn ? band.all(first, last, first_own, last_own)
                                                  : band.all(first_own, last_own, first, last));
    const bool non_finite = sync_and_find(cut, [&] {
      return loaded_non_finite<kThreads32>(visit_a) ||
             (kKeysOwn && loaded_non_finite<kThreads32>(visit_b));
    });
    if (non_finite) part_non_finite(first, h);
    Accumulator<kOwn, kVisit, Config::kTf32> s, dp;
    s.template add<true>(own_a, visit_a);
    dp.template add<true>(own_b, visit_b);
    s.for_each([&](int r, int column, float value) { *s_tile.at(r, column) = value; });
    dp.for_each([&](int r, int column, float value) { *dp_tile.at(r, column) = value; });
    __syncthreads();
    to_ds32<kKeysOwn, kDropout>(params, program, s_tile, dp_tile, b, h,
                                kKeysOwn ? first : first_own, kKeysOwn ? first_own : first,
                                steps.is_cut());
    __syncthreads();
    d_a.template add<false>(dp_tile, visit_a);
    if constexpr (kKeysOwn) d_b.template add<false>(s_tile, visit_b);
  }
  cp_async_commit();
  cp_async_wait<0>();

  const auto store = [&](auto& c, void* x, const Strides& strides, float factor) {
    float* target = static_cast<float*>(x) + b * strides.b + work.h * strides.h;
    c.for_each([&](int r, int column, float value) {
      if (r >= own || column >= Config::kHeadSize) return;
      target[(first_own + r) * strides.t + column] = value * factor;
    });
  };
  if constexpr (kKeysOwn) {
    store(d_a, params.dk, params.dk_strides, p.scale);
    store(d_b, params.dv, params.dv_strides, kDropout ? p.keep_scale : 1.0f);
  } else {
    store(d_a, params.dq, params.dq_strides, p.scale);
  }
}

}  // namespace nanoflex::cuda
