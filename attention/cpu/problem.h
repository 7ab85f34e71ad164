// What the CPU tile kernels are told: plain pointers and sizes, so that the files that are compiled
// for one instruction set include nothing that other files share.
#pragma once

#include <cstdint>

#include "attention/cpu/program.h"

namespace nanoflex::cpu {

/// Rows of D elements at data + b * batch + h * head + row * row_stride, D next to each other.
struct Rows {
  void* data = nullptr;
  int64_t batch = 0, head = 0, row = 0;  ///< strides in elements
};

/// Which blocks of pairs a mask leaves empty (0), cuts (1) or fills (2): kind of rows i size ..
/// and keys j size .. at kinds + b * batch + h * head + i * row + j. Null: all are full.
struct Blocks {
  const uint8_t* kinds = nullptr;
  int64_t size = 0;
  int64_t batch = 0, head = 0, row = 0;
};

/// Which keys [begin, end) each position sees, beside the band: at keys + b * batch + 2 * position.
/// Neither moves back from one position to the next. Null: all.
struct Ranges {
  const int32_t* keys = nullptr;
  int64_t batch = 0;
};

/// One call of attention. q, o, dq: [B, H, T, D]; k, v, dk, dv: [B, H_kv, S, D]; all of one dtype.
/// Row t stands at key position t + S - T = p and sees the keys p - left .. p + right.
struct Problem {
  int64_t B, H, H_kv, T, S, D;
  int64_t left, right;  ///< between -(S + T) and S + T
  float scale;          ///< of q k^T, > 0
  float softmax_scale;  ///< of what the softmax is taken of: scale, or 1 where a score changes it

  bool exact = false;  ///< the logsumexp, to fp32's digits for any dtype
  Ranges ranges = {};
  Blocks blocks = {};                ///< further masked, beside band and ranges
  const Program* program = nullptr;  ///< of this pass: masks cut blocks, changes scores

  bool dropout = false;
  uint64_t seed = 0;
  uint32_t threshold = 0;  ///< of philox.h: weights whose word is below are dropped
  float keep_scale = 1;    ///< 1 / (1 - probability)

  Rows q = {}, k = {}, v = {}, o = {};
  float* logsumexp = nullptr;  ///< [B, H, T]
  /// [2, B, H, T]: the row's largest score, before softmax_scale, and log2 of the sum of 2^(c (s -
  /// largest)), c = softmax_scale log2(e). The logsumexp alone would cost weights near 1 the digits
  /// that a large score takes.
  float* denominator = nullptr;

  // Backward only.
  Rows d_o = {}, dq = {}, dk = {}, dv = {};
  const float* delta = nullptr;  ///< [B, H, T], rowsum(dO * O) - dlogsumexp
  float* dq_sums = nullptr;      ///< [B, H, T, D], of the units that added to dq so far
};

/// A unit of the forward pass: query rows of one key head, whose G = H / H_kv query heads lie
/// end to end as G * T columns, against a range of keys.
struct ForwardUnit {
  int64_t b, h_kv;
  int64_t column, columns;     ///< first, and how many
  int64_t key_begin, key_end;  ///< all keys: 0, S
  float* partial = nullptr;  ///< not null: unnormalised o [columns, D], then each column's largest
                             ///< score (before softmax_scale) and sum, to be joined with those of
                             ///< the other key ranges
};

/// A unit of the backward pass: the index-th keys_per_unit keys of one key head, against all
/// queries.
struct BackwardUnit {
  int64_t b, h_kv;
  int64_t index;  ///< of the unit in its head: its first key is index * keys_per_unit
  int64_t keys_per_unit;
  uint32_t* turn;  ///< [B, H, tiles of queries]: the index of the unit that adds to that tile of dq
                   ///< next, at first the first that sees it. So the order is fixed.
  GradientSums sums = {};  ///< of captured tensors; the thread's own
};

}  // namespace nanoflex::cpu
