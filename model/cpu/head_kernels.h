// The head's loss on tiles, as a row of pointers for each instruction set. Plain pointers and
// sizes: see attention/cpu/problem.h.
#pragma once

#include <cstdint>

namespace nanoflex::cpu {

constexpr int64_t kHeadTile = 192;  ///< of the vocabulary

/// Stride of what has a column for each of `rows` rows of x; of whole chunks not a power of 2,
/// whose multiples share a few sets of the cache.
constexpr int64_t head_stride(int64_t rows) { return (rows + 15) / 16 * 16 + 16; }

/// Some rows of x against the head, z = weight x^T, where logits are l = softcap tanh(z / softcap).
/// They are bounded, so that sums of e^l need no largest one.
struct HeadChunk {
  int64_t C, rows;  ///< x: [rows, C]; at most HeadKernels::rows
  int64_t stride;   ///< head_stride of the most rows of a chunk
  float softcap;
  const void* x;           ///< in the inputs' type, as all that is void here; rows of C
  const void* weight;      ///< [V, C]
  const int64_t* targets;  ///< [rows]
  float* columns;          ///< [padded_width(C), stride], x as a right factor

  float* target_z;  ///< [rows], z of the targets that lie in the vocabulary
  void* slope;      ///< [V, stride], e^l (1 - tanh^2), or null when no gradient is wanted

  const void* scaled_x = nullptr;  ///< x with every row times what its slopes lack, for dweight
  float* scaled = nullptr;         ///< [stride, padded_width(C)], it as a right factor
  float* dweight = nullptr;        ///< [V, C]
  bool first = true;               ///< dweight holds nothing yet
};

/// Vocabulary entries begin .. end of a chunk.
struct HeadSection {
  int64_t begin, end;
};

/// For inputs of one dtype. Scratch must be aligned to 64 bytes.
struct HeadKernels {
  int64_t (*rows)(int64_t C);  ///< of x that a chunk holds at most
  int64_t (*scratch_bytes)(int64_t C);
  /// Writes `columns`.
  void (*pack)(const HeadChunk&);
  /// sums [stride]: of e^l over the section, for each row. Writes `slope` and target_z.
  void (*exponentials)(const HeadChunk&, const HeadSection&, char* scratch, float* sums);
  /// Writes `scaled`.
  void (*pack_scaled)(const HeadChunk&);
  /// dweight += slope scaled_x; dx [padded_width(C), stride] = weight^T slope over the
  /// section, in its first C rows.
  void (*gradients)(const HeadChunk&, const HeadSection&, char* scratch, float* dx);
  /// out [rows, C]: row i is column i of dx times factor[i], of [stride].
  void (*put_rows)(const HeadChunk&, const float* dx, const float* factor, void* out);
};

/// The width that rows of C are given as a right factor; room for what fills them up to a unit.
constexpr int64_t padded_width(int64_t C) { return (C + 15) / 16 * 16 + 16; }

}  // namespace nanoflex::cpu
