// Softmax over keys that arrive in blocks: running maximum and denominator per row, in base 2.
// Milakov & Gimelshein, arXiv:1805.02867; Dao, arXiv:2307.08691, algorithm 1.
#pragma once

#include "attention/cuda/mask.cuh"
#include "attention/cuda/tile.cuh"

namespace nanoflex::cuda {

/// Over the four lanes that hold one row of an accumulator.
__device__ __forceinline__ float row_maximum(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(0xffffffff, x, 1);
  return x + __shfl_xor_sync(0xffffffff, x, 2);
}

template <int R>
struct OnlineSoftmax {
  float maximum[R][2];  // of unscaled scores
  float sum[R][2];      // this lane's share

  __device__ __forceinline__ OnlineSoftmax() {
#pragma unroll
    for (int i = 0; i < R; ++i) {
      maximum[i][0] = maximum[i][1] = -kInfinity;
      sum[i][0] = sum[i][1] = 0;
    }
  }

  /// What exponents subtract. exp2(-inf - -inf) is NaN: rows that have seen nothing subtract 0.
  /// Rounded by itself, so that a maximum that has not grown rescales by exactly 1: fused into a
  /// multiply-add its rounding error would, and grow with every step.
  __device__ __forceinline__ float shift(int i, int half, float factor) const {
    return maximum[i][half] == -kInfinity ? 0.0f : __fmul_rn(maximum[i][half], factor);
  }

  /// Turns s into weights exp2(factor * (s - maximum)) and rescales o to the new maximum.
  template <int C, int Columns>
  __device__ __forceinline__ void update(float (&s)[R][C][4], float (&o)[R][Columns][4],
                                         float factor) {
#pragma unroll
    for (int i = 0; i < R; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int e = 2 * half;
        const bool first = maximum[i][half] == -kInfinity;
        const float before = shift(i, half, factor);
        float largest = maximum[i][half];
#pragma unroll
        for (int j = 0; j < C; ++j) largest = fmaxf(largest, fmaxf(s[i][j][e], s[i][j][e + 1]));
        maximum[i][half] = row_maximum(largest);
        const float subtract = shift(i, half, factor);
        const float rescale = first ? 0.0f : exp2_approx(before - subtract);
        float total = sum[i][half] * rescale;
#pragma unroll
        for (int j = 0; j < C; ++j) {
          s[i][j][e] = exp2_approx(fmaf(s[i][j][e], factor, -subtract));
          s[i][j][e + 1] = exp2_approx(fmaf(s[i][j][e + 1], factor, -subtract));
          total += s[i][j][e] + s[i][j][e + 1];
        }
        sum[i][half] = total;
        // After the first few blocks maxima seldom grow.
        if (__any_sync(0xffffffff, rescale != 1.0f)) {
#pragma unroll
          for (int j = 0; j < Columns; ++j) o[i][j][e] *= rescale, o[i][j][e + 1] *= rescale;
        }
      }
    }
  }

  /// Divides o by the denominator, times `keep_scale`, or makes it 0 in rows that have seen nothing
  /// (0 times hidden values that are no numbers is none either); leaves the natural logsumexp in
  /// `maximum`.
  template <int Columns>
  __device__ __forceinline__ void finish(float (&o)[R][Columns][4], float factor,
                                         float keep_scale) {
#pragma unroll
    for (int i = 0; i < R; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float total = row_sum(sum[i][half]);
        const float inverse = keep_scale / total;
        maximum[i][half] = total == 0 ? -kInfinity : (shift(i, half, factor) + log2f(total)) * kLn2;
#pragma unroll
        for (int j = 0; j < Columns; ++j) {
          float &x = o[i][j][2 * half], &y = o[i][j][2 * half + 1];
          x = total == 0 ? 0.0f : x * inverse, y = total == 0 ? 0.0f : y * inverse;
        }
      }
    }
  }
};

}  // namespace nanoflex::cuda
