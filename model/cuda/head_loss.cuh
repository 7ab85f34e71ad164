// The loss of the head's logits and its gradient: a block for each row, which it reads twice, the
// second time from the cache.
#pragma once

#include "attention/cuda/mask.cuh"
#include "attention/cuda/tile.cuh"
#include "model/cuda/head_params.h"

namespace nanoflex::cuda {

constexpr float kNaN = __builtin_bit_cast(float, 0x7fc00000);

/// What a logit becomes under the soft cap.
struct CappedLogit {
  float exponential;  ///< e^(softcap tanh(z / softcap))
  float slope;        ///< of the cap: 1 - tanh^2
};

/// For logits of T: 16-bit ones know tanh less exactly than the hardware's exponential gives it. Of
/// a single one that decides a loss, as fp32's.
template <typename T>
__device__ __forceinline__ CappedLogit cap_logit(float z, float softcap) {
  if constexpr (sizeof(T) == 2) {
    const float rest = __fdividef(1.0f, 1.0f + exp2_approx(z * (2 * kLog2E / softcap)));
    const float exponent = softcap * kLog2E * (1 - 2 * rest);
    return {exp2_approx(exponent), 4 * rest * (1 - rest)};
  } else {
    const float tanh = tanhf(z / softcap);
    return {expf(softcap * tanh), (1 - tanh) * (1 + tanh)};
  }
}

/// The sum over all threads, to each, always in the same order.
__device__ __forceinline__ float block_sum(float x) {
  float* sums = reinterpret_cast<float*>(dynamic_shared);
#pragma unroll
  for (int i = 1; i < 32; i *= 2) x += __shfl_xor_sync(0xffffffff, x, i);
  if (lane_index() == 0) sums[warp_index()] = x;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int warp = 0; warp < kHeadThreads / 32; ++warp) total += sums[warp];
  return total;
}

/// One row of logits, of which each thread takes 16 bytes at a time.
template <typename T>
struct LogitRow {
  static constexpr int kPart = 16 / sizeof(T);

  T* data;
  int V;

  /// visit(column, x): x are the logits from `column` on; those beyond V are any number.
  template <typename Visit>
  __device__ __forceinline__ void for_each_part(const Visit& visit) const {
    for (int column = static_cast<int>(threadIdx.x) * kPart; column < V;
         column += kHeadThreads * kPart) {
      float x[kPart];
      if (V - column >= kPart) {
        load_chunk(x, data + column);
      } else {
#pragma unroll
        for (int i = 0; i < kPart; ++i) x[i] = column + i < V ? to_float(data[column + i]) : 0;
      }
      visit(column, x);
    }
  }

  __device__ __forceinline__ void store(int column, const float (&x)[kPart]) const {
    if (V - column >= kPart) {
      store_chunk(data + column, x);
      return;
    }
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      if (column + i < V) store_rounded(data + column + i, x[i]);
    }
  }

  __device__ __forceinline__ void clear() const {
    for (int column = static_cast<int>(threadIdx.x) * kPart; column < V;
         column += kHeadThreads * kPart) {
      const float zeros[kPart] = {};
      store(column, zeros);
    }
  }
};

template <typename T>
__device__ __forceinline__ void head_loss(const HeadParams& params) {
  constexpr int kPart = LogitRow<T>::kPart;
  const int64_t index = blockIdx.x, target = params.targets[index];
  const LogitRow<T> row = {static_cast<T*>(params.logits) + index * params.stride, params.V};
  if (target == -1) {
    if (threadIdx.x == 0) params.losses[index] = 0;
    if (params.gradients) row.clear();
    return;
  }
  const bool known = target >= 0 && target < params.V;
  const float softcap = params.softcap;
  const float own =
      known ? cap_logit<float>(to_float(row.data[target]), softcap).exponential : kNaN;
  // Apart from the target's own, since a sure model's loss and gradient are in what is left.
  float others = 0;
  row.for_each_part([&](int column, const float(&z)[kPart]) {
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      const bool counts = column + i < params.V && column + i != target;
      others += counts ? cap_logit<T>(z[i], softcap).exponential : 0.0f;
    }
  });
  others = block_sum(others);

  const float sum = others + own, logsumexp = logf(sum), pull = 2 * params.z_loss * logsumexp;
  if (threadIdx.x == 0) {
    params.losses[index] = log1pf(others / own) + params.z_loss * logsumexp * logsumexp;
  }
  if (!params.gradients) return;
  const float weight = (1 + pull) / sum;
  const float target_gradient = (pull * own - others) / sum;
  row.for_each_part([&](int column, float(&z)[kPart]) {
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      const CappedLogit logit = cap_logit<T>(z[i], softcap);
      z[i] = (column + i == target ? target_gradient : weight * logit.exponential) * logit.slope;
    }
    row.store(column, z);
  });
}

}  // namespace nanoflex::cuda
