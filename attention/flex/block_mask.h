#pragma once

#include <ATen/Functions.h>

#include <cstdint>
#include <memory>
#include <string>

#include "attention/flex/expression.h"

namespace nanoflex::flex {

enum class BlockKind : uint8_t { kEmpty = 0, kPartial = 1, kFull = 2 };

struct BlockMaskOptions {
  int64_t B = 1, H = 1, T = 1, S = 1;  ///< query row i stands at key position i + S - T
  int64_t block_size = 128;            ///< a multiple of 16
};

/// Blocks of one kind as lists, one list a row (a block of queries, or of keys), in compressed
/// sparse row form: blocks of row r are blocks[offsets[r]] .. blocks[offsets[r + 1] - 1],
/// ascending. Row r = (b * heads + h) * rows_per_head + block.
struct BlockLists {
  at::Tensor offsets, blocks;  ///< int32
};

/// Which blocks of block_size x block_size pairs a mask leaves empty, fills, or cuts. `batches` and
/// `heads` are 1 where the mask does not depend on b or h.
struct BlockMask {
  int64_t batches, heads, query_blocks, key_blocks, block_size, T, S;
  at::Tensor kinds;  ///< [batches, heads, query_blocks, key_blocks] uint8 of BlockKind
  BlockLists partial_keys, full_keys;        ///< for each block of queries: its blocks of keys
  BlockLists partial_queries, full_queries;  ///< for each block of keys: its blocks of queries
  int64_t boxes_judged = 0;  ///< what it cost: intervals computed, over boxes and single pairs

  /// The share of blocks that no pair in may attend, 0 .. 1.
  double sparsity() const;
};

/// Exact: a block is empty or full when no or all pairs in it may attend (a block that is cut by
/// the end of T or S is judged by the pairs that there are). Decided by interval arithmetic over
/// blocks, then over their quarters and so on, and at last by single pairs; so the cost is in
/// blocks, not in pairs. Captured tensors on any device (copied to the CPU). Throws
/// std::invalid_argument for an unbound tensor, an index outside of a tensor where it is evaluated,
/// and a block size that is not a positive multiple of 16.
BlockMask make_block_mask(const Expression& mask, const BlockMaskOptions& options);

/// The same, remembered: as long as neither the mask nor what its tensors hold changes, the same
/// object comes back (of the last 64). Safe to call from several threads.
std::shared_ptr<const BlockMask> block_mask(const Expression& mask,
                                            const BlockMaskOptions& options);

/// The share of pairs that may attend, 0 .. 1, exactly, as a mean over batches and heads. Costs
/// more than the blocks: cut blocks are counted pair by pair where halving them decides nothing.
double visible_share(const Expression& mask, const BlockMaskOptions& options);

/// A picture in text, at most 64 columns wide, of one batch and head (full, cut, empty), with sizes
/// and sparsity: for people.
std::string describe(const BlockMask& mask);

}  // namespace nanoflex::flex
