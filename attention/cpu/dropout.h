// Dropout on a tile of weights.
#pragma once

#include "attention/cpu/tiles.h"
#include "attention/philox.h"

namespace nanoflex::cpu {
namespace {

/// weights: [rows, width] from `key` on, as pairs of keys where products take pairs; column i is
/// row `row[i]` of head `head[i]`. Dropped ones become 0, kept ones grow by 1 / (1 - probability).
template <typename Math>
void drop_columns(const Problem& p, const uint32_t* head, const uint32_t* row, int64_t key,
                  int rows, int width, Columns<typename Math::Element> weights) {
  for (int64_t group = key / 4 * 4; group < key + rows; group += 4) {
    for (int column = 0; column < width; ++column) {
      const PhiloxWords words =
          dropout_words(p.seed, head[column], row[column], static_cast<uint32_t>(group));
      for (int i = 0; i < 4; ++i) {
        const int64_t at = group + i - key;
        if (at < 0 || at >= rows) continue;
        const bool dropped = words.word[i] < p.threshold;
        auto* place = weights.data + at / Math::kPair * weights.row +
                      column / Math::kLanes * weights.panel + column % Math::kLanes;
        if constexpr (Math::kPair == 1) {
          float& weight = *place;
          weight = dropped ? 0 : weight * p.keep_scale;
        } else {
          auto& weight = reinterpret_cast<LooseWord*>(place)[at % 2];
          weight = dropped ? uint16_t{0} : narrow(widen(weight) * p.keep_scale);
        }
      }
    }
  }
}

}  // namespace
}  // namespace nanoflex::cpu
