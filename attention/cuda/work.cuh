// Which rows of which head a block works on.
#pragma once

#include "attention/cuda/tile.cuh"

namespace nanoflex::cuda {

struct Work {
  int b, h, block;
};

/// Block `index` of heads x blocks. Heads are taken in sections whose keys and values fit the L2
/// cache; within one, all heads' last blocks come first, which under a causal mask are the longest.
__device__ __forceinline__ Work work_of(int index, int batches, int heads, int blocks,
                                        int section) {
  const int per_section = section * blocks;
  const int first = index / per_section * section;
  const int here = min(section, batches * heads - first);
  const int within = index % per_section;
  const int head = first + within % here;
  return {head / heads, head % heads, blocks - 1 - within / here};
}

/// The query rows of one query head or, when packed, of all query heads that share a key head,
/// neighbours being the heads of one query: then keys are read once for all of them.
template <bool kPacked>
struct QueryRows {
  int T, group, first_head;

  __device__ __forceinline__ QueryRows(const AttentionParams& p, int h)
      : T(p.T), group(p.H / p.H_kv), first_head(kPacked ? h * group : h) {}

  __device__ __forceinline__ int count() const { return kPacked ? T * group : T; }
  __device__ __forceinline__ int query(int row) const { return kPacked ? row / group : row; }
  __device__ __forceinline__ int head(int row) const {
    return kPacked ? first_head + row % group : first_head;
  }
  __device__ __forceinline__ int key_head() const { return first_head / group; }

  /// Of row `row` in a tensor [B, H, T, D].
  __device__ __forceinline__ int64_t place(const Strides& strides, int b, int row) const {
    return b * strides.b + head(row) * strides.h + query(row) * strides.t;
  }
};

}  // namespace nanoflex::cuda
