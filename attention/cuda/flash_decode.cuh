// The second half of attention whose keys are split over blocks (few query rows, many keys): the
// parts that flash_forward.cuh wrote with kSplit become one result.
//   o = sum_s w_s o_s / sum_s w_s, w_s = exp(logsumexp_s)
#pragma once

#include "attention/cuda/mask.cuh"
#include "attention/cuda/shapes.h"
#include "attention/cuda/tile.cuh"

namespace nanoflex::cuda {

/// A warp per row of [B, H, T].
template <typename T, int kHeadSize>
__device__ __forceinline__ void flash_combine(const ForwardParams& params) {
  constexpr int kD = padded_head_size(kHeadSize), kColumns = kD / 32;
  const AttentionParams& p = params.attention;
  const int64_t rows = static_cast<int64_t>(p.B) * p.H * p.T;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + warp_index();
  if (row >= rows) return;
  const int lane = lane_index();
  const float* part = params.partial_logsumexp + row;

  float maximum = -kInfinity, total = 0;
  for (int s = lane; s < params.splits; s += 32) maximum = fmaxf(maximum, part[s * rows]);
#pragma unroll
  for (int i = 1; i < 32; i *= 2) {
    maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffff, maximum, i));
  }
  const float shift = maximum == -kInfinity ? 0.0f : maximum;
  float o[kColumns] = {};
  for (int first = 0; first < params.splits; first += 32) {
    const int here = min(32, params.splits - first);
    const float mine =
        lane < here ? exp2_approx((part[(first + lane) * rows] - shift) * kLog2E) : 0.0f;
    total += mine;
    // Loads of several splits are on their way at once.
    constexpr int kAhead = 8;
    for (int s = 0; s < here; s += kAhead) {
      float x[kAhead][kColumns];
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        const float* source = params.partial_o + ((first + s + u) * rows + row) * kD + lane;
#pragma unroll
        for (int j = 0; j < kColumns; ++j) x[u][j] = s + u < here ? source[32 * j] : 0.0f;
      }
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        const float weight = __shfl_sync(0xffffffff, mine, s + u);
#pragma unroll
        for (int j = 0; j < kColumns; ++j) o[j] = fmaf(weight, x[u][j], o[j]);
      }
    }
  }
#pragma unroll
  for (int i = 1; i < 32; i *= 2) total += __shfl_xor_sync(0xffffffff, total, i);
  const float inverse = total == 0 ? 0.0f : 1 / total;
  if (lane == 0) params.logsumexp[row] = total == 0 ? -kInfinity : maximum + log2f(total) * kLn2;
  const int64_t head = row / p.T;
  T* target = static_cast<T*>(params.o) + head / p.H * params.o_strides.b +
              head % p.H * params.o_strides.h + row % p.T * params.o_strides.t;
#pragma unroll
  for (int j = 0; j < kColumns; ++j) {
    if (lane + 32 * j < kHeadSize) store_rounded(target + lane + 32 * j, o[j] * inverse);
  }
}

}  // namespace nanoflex::cuda
