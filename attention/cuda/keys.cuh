// The copies of keys and values into shared memory, for kernels whose blocks own query rows.
#pragma once

#include "attention/cuda/tile.cuh"

namespace nanoflex::cuda {

/// Block i of keys and of values lies in stage i % kStages.
template <typename Config>
struct KeyLoader {
  using T = typename Config::T;
  const AttentionParams& p;
  const T *k, *v;
  T* shared;

  __device__ __forceinline__ KeyLoader(const AttentionParams& p, int b, int key_head, T* shared)
      : p(p),
        k(static_cast<const T*>(p.k) + b * p.k_strides.b + key_head * p.k_strides.h),
        v(static_cast<const T*>(p.v) + b * p.v_strides.b + key_head * p.v_strides.h),
        shared(shared) {}

  __device__ __forceinline__ typename Config::KeyTile keys(int i) const {
    return {shared + i % Config::kStages * 2 * Config::KeyTile::kElements};
  }
  __device__ __forceinline__ typename Config::KeyTile values(int i) const {
    return {keys(i).data + Config::KeyTile::kElements};
  }
  __device__ __forceinline__ void load_keys(int i, int first) const {
    load_tile<Config::kThreads>(keys(i), k + first * p.k_strides.t, p.k_strides.t, p.S - first,
                                Config::kHeadSize);
  }
  __device__ __forceinline__ void load_values(int i, int first) const {
    load_tile<Config::kThreads>(values(i), v + first * p.v_strides.t, p.v_strides.t, p.S - first,
                                Config::kHeadSize);
  }
};

}  // namespace nanoflex::cuda
