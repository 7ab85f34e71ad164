// Dropout's decisions for the elements of an accumulator, with one call of philox for four.
#pragma once

#include "attention/cuda/tile.cuh"
#include "attention/philox.h"

namespace nanoflex::cuda {

constexpr uint32_t kFullWarp = 0xffffffff;

/// Which of an accumulator tile's four elements (rows are queries, columns are keys) stay; tile's
/// first key is a multiple of 8. Neighbouring lanes share four keys: the even one draws for the
/// upper row, the odd one for the lower, and they swap what the other needs.
__device__ __forceinline__ void keep_of_rows(bool (&keep)[4], const AttentionParams& p,
                                             uint32_t head, int upper_row, int first_key) {
  const int lane = lane_index();
  const bool odd = lane % 2 != 0;
  const int row = odd ? upper_row + 8 : upper_row;
  const PhiloxWords w = dropout_words(p.seed, head, row, first_key + lane % 4 / 2 * 4);
  const uint32_t other0 = __shfl_xor_sync(kFullWarp, odd ? w.word[0] : w.word[2], 1);
  const uint32_t other1 = __shfl_xor_sync(kFullWarp, odd ? w.word[1] : w.word[3], 1);
  keep[0] = (odd ? other0 : w.word[0]) >= p.dropout_threshold;
  keep[1] = (odd ? other1 : w.word[1]) >= p.dropout_threshold;
  keep[2] = (odd ? w.word[2] : other0) >= p.dropout_threshold;
  keep[3] = (odd ? w.word[3] : other1) >= p.dropout_threshold;
}

/// The same where rows are keys and columns are queries. The four lanes that hold four consecutive
/// keys of two queries draw for (query + {0, 1}, keys + {0, 8}) and transpose the 4 x 4 words.
__device__ __forceinline__ void keep_of_columns(bool (&keep)[4], const AttentionParams& p,
                                                uint32_t head, int upper_key, int first_row) {
  const int lane = lane_index(), index = lane / 4 % 4;
  const bool odd = index % 2 != 0, high = index / 2 != 0;
  const int query = first_row + lane % 4 * 2 + index % 2;
  const int keys = upper_key - index + index / 2 * 8;
  PhiloxWords w = dropout_words(p.seed, head, query, keys);
  const uint32_t near0 = __shfl_xor_sync(kFullWarp, odd ? w.word[0] : w.word[1], 4);
  const uint32_t near1 = __shfl_xor_sync(kFullWarp, odd ? w.word[2] : w.word[3], 4);
  const uint32_t a0 = odd ? near0 : w.word[0], a1 = odd ? w.word[1] : near0;
  const uint32_t a2 = odd ? near1 : w.word[2], a3 = odd ? w.word[3] : near1;
  const uint32_t far0 = __shfl_xor_sync(kFullWarp, high ? a0 : a2, 8);
  const uint32_t far1 = __shfl_xor_sync(kFullWarp, high ? a1 : a3, 8);
  keep[0] = (high ? far0 : a0) >= p.dropout_threshold;
  keep[1] = (high ? far1 : a1) >= p.dropout_threshold;
  keep[2] = (high ? a2 : far0) >= p.dropout_threshold;
  keep[3] = (high ? a3 : far1) >= p.dropout_threshold;
}

}  // namespace nanoflex::cuda
