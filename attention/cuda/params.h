// What a kernel is told, filled by the host and passed by value. Also compiled by NVRTC.
#pragma once

#if defined(__CUDACC_RTC__)
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;
#else
#include <cstdint>
#endif

namespace nanoflex::cuda {

constexpr int kUnbounded = 0x3fffffff;  ///< a band edge that hides nothing; T and S stay below it

/// In elements; the last dimension's is 1.
struct Strides {
  int64_t b, h, t;
};

/// Scaled scores s = scale * q k^T of the pairs with position - left <= kv <= position + right,
/// where query row i stands at position i + S - T.
struct AttentionParams {
  const void *q, *k, *v;  ///< q: [B, H, T, D]; k, v: [B, H_kv, S, D]
  Strides q_strides, k_strides, v_strides;
  int B, H, H_kv, T, S, D;
  int left, right;
  float scale;  ///< positive: the host moves a sign into q
  uint64_t seed;
  uint32_t dropout_threshold;  ///< words below it are dropped
  float keep_scale;            ///< 1 / (1 - dropout)
  int heads_per_section;       ///< heads (of one batch after the other) that share the L2 cache
};

struct ForwardParams {
  AttentionParams attention;
  void* o;  ///< [B, H, T, D]; rows hold D rounded up to 8
  Strides o_strides;
  float* logsumexp;  ///< [B, H, T], natural logarithm
  /// [2, B, H, T], of fp32 inputs: a row's largest score and the logarithm of its sum of exp(s -
  /// largest). Their sum alone would cost weights near 1 the digits that a large score takes.
  float* denominator = nullptr;
  /// Only where keys are split over blocks: partial results, contiguous.
  int splits;
  float* partial_o;          ///< [splits, B, H, T, padded head size]
  float* partial_logsumexp;  ///< [splits, B, H, T]
};

struct BackwardParams {
  AttentionParams attention;
  const void *o, *d_o;
  Strides o_strides, d_o_strides;
  const float* logsumexp;              ///< [B, H, T]
  const float* denominator = nullptr;  ///< as the forward pass wrote it; of fp32 inputs
  const float* d_logsumexp;            ///< [B, H, T], or null
  float *delta, *shift;                ///< [B, H, T], written by the first kernel for the others
  void *dq, *dk, *dv;                  ///< rows hold D rounded up to 8
  /// Parts (a divisor of H / H_kv) that a key head's query heads are dealt to, for more blocks: dk
  /// and dv are [B, H_kv * head_parts, S, D], to be summed over the parts.
  int head_parts = 1;
  Strides dq_strides, dk_strides, dv_strides;
};

/// What is known of blocks of pairs under a program's mask: 0 none of them may attend, 1 some, 2
/// all. The band of AttentionParams is not part of it.
struct BlockKinds {
  const unsigned char* kinds = nullptr;  ///< null: nothing is known
  int64_t batch = 0, head = 0;           ///< from one to the next; 0 where all are alike
  int row = 0;                           ///< from a block of queries to the next
  int size = 1;                          ///< a block's queries and keys
};

/// What a program reads beside the pair and its score: captured tensors, row by row, and 32-bit
/// words: constants and the tensors' strides.
template <int kTensors, int kWords>
struct ProgramArguments {
  BlockKinds blocks;
  const void* tensors[kTensors];
  int32_t words[kWords];
};

}  // namespace nanoflex::cuda
