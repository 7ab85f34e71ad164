// Dropout on a tile of weights.
#pragma once

#include "attention/cpu/tiles.h"
#include "attention/philox.h"

namespace nanoflex::cpu {
namespace {

/// weights: [keys, width] from `key` on; column i is row `row[i]` of head `head[i]`. Dropped ones
/// become 0, kept ones grow by 1 / (1 - probability).
template <typename Math>
void drop_columns(const Problem& p, const uint32_t* head, const uint32_t* row, int64_t key,
                  int rows, int width, float* weights) {
  for (int64_t group = key / 4 * 4; group < key + rows; group += 4) {
    for (int column = 0; column < width; ++column) {
      const PhiloxWords words =
          dropout_words(p.seed, head[column], row[column], static_cast<uint32_t>(group));
      for (int i = 0; i < 4; ++i) {
        if (group + i < key || group + i >= key + rows) continue;
        float& weight = weights[(group + i - key) * width + column];
        weight = words.word[i] < p.threshold ? 0 : weight * p.keep_scale;
      }
    }
  }
}

}  // namespace
}  // namespace nanoflex::cpu
