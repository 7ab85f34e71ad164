// FlashAttention-2 backward (Dao, arXiv:2307.08691, algorithm 2) in three kernels without atomics:
// this one's correction per row, then dk and dv with blocks that own keys, and dq with blocks that
// own queries. Weights are recomputed from the logsumexp.
//   p = exp(s - logsumexp)   ds = p (dp - delta)   delta = rowsum(do o) - dlse
#pragma once

#include "attention/cuda/mask.cuh"
#include "attention/cuda/tile.cuh"

namespace nanoflex::cuda {

/// Writes delta [B, H, T] (fp32 inputs leave out dlse: it is added where no digits are lost), and
/// for 16-bit inputs shift: the logsumexp in base 2, which saves a multiplication per score, or
/// +inf for a row that sees nothing. Eight lanes share a row.
template <typename T>
__device__ __forceinline__ void flash_delta(const BackwardParams& params) {
  constexpr int kLanes = 8, kChunk = 16 / static_cast<int>(sizeof(T));
  const AttentionParams& p = params.attention;
  const int64_t rows = static_cast<int64_t>(p.B) * p.H * p.T;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  // Lanes beyond the last row only lend a hand in the sum.
  const int64_t row = min(thread / kLanes, rows - 1);
  const int64_t head = row / p.T, i = row % p.T, b = head / p.H, h = head % p.H;
  const T* o = static_cast<const T*>(params.o) + b * params.o_strides.b + h * params.o_strides.h +
               i * params.o_strides.t;
  const T* d_o = static_cast<const T*>(params.d_o) + b * params.d_o_strides.b +
                 h * params.d_o_strides.h + i * params.d_o_strides.t;
  float sum = 0;
  if constexpr (sizeof(T) == 4) {
    // In the order in which dp is summed, so that rows that see one key alone cancel.
    if (thread % kLanes == 0) {
      for (int d = 0; d < p.D; ++d) sum = fmaf(to_float(o[d]), to_float(d_o[d]), sum);
    }
  } else {
    for (int column = static_cast<int>(thread % kLanes) * kChunk; column < p.D;
         column += kLanes * kChunk) {
      if (column + kChunk <= p.D) {
        float x[kChunk], y[kChunk];
        load_chunk(x, o + column);
        load_chunk(y, d_o + column);
#pragma unroll
        for (int j = 0; j < kChunk; ++j) sum = fmaf(x[j], y[j], sum);
      } else {
        for (int j = column; j < p.D; ++j) sum = fmaf(to_float(o[j]), to_float(d_o[j]), sum);
      }
    }
#pragma unroll
    for (int lanes = 1; lanes < kLanes; lanes *= 2) sum += __shfl_xor_sync(0xffffffff, sum, lanes);
  }
  if (thread % kLanes != 0 || thread / kLanes >= rows) return;
  const float logsumexp = params.logsumexp[row];
  const bool seen = logsumexp != -kInfinity;
  if constexpr (sizeof(T) == 2) {
    if (params.d_logsumexp != nullptr) sum -= params.d_logsumexp[row];
    params.shift[row] = seen ? logsumexp * kLog2E : kInfinity;
  }
  params.delta[row] = seen ? sum : 0.0f;
}

/// One element of the recomputation: turns a score s = q k^T and dp = do v^T into the weight as dv
/// needs it (dropped, less dropout's scale) and into ds / scale.
template <typename Program, bool kBase2>
struct BackwardElement {
  const AttentionParams& p;
  const Program& program;

  /// b, h, q (a position), kv matter only to a program. exp(s - shift - rest) is the weight; s is
  /// rounded as the forward pass rounded it, so that nothing is left of a score that is the shift.
  __device__ __forceinline__ void operator()(float& s, float& dp, bool seen, bool keep, float shift,
                                             float delta, int b, int h, int q, int kv,
                                             float rest = 0, float d_logsumexp = 0) const {
    float score, derivative = 1;
    if constexpr (Program::kHasScore) {
      score = program.score(__fmul_rn(s, p.scale), b, h, q, kv, derivative);
    } else {
      score = kBase2 ? s : __fmul_rn(s, p.scale);
    }
    const float factor = Program::kHasScore ? kLog2E : p.scale * kLog2E;
    const float exponent = kBase2 ? fmaf(score, factor, -shift) : (score - shift - rest) * kLog2E;
    const float weight = seen ? exp2_approx(exponent) : 0.0f;
    const float d_weight = keep ? dp * p.keep_scale : 0.0f;
    // Nothing flows from what is hidden, whatever it is.
    dp = seen ? weight * (d_weight - delta + d_logsumexp) : 0.0f;
    // Where nothing flows, an infinite derivative must not make it NaN.
    if constexpr (Program::kHasScore) dp = weight == 0 ? 0.0f : dp * derivative;
    s = keep ? weight : 0.0f;
  }
};

}  // namespace nanoflex::cuda
