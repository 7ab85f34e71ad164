#pragma once

#include "attention/flex/block_mask.h"
#include "attention/flex/evaluate.h"
#include "attention/flex/interval_program.h"

namespace nanoflex::flex {

/// Rows (queries) and keys of one batch and head.
struct Area {
  int64_t b, h;
  Range rows, keys;

  int64_t pairs() const { return rows.size() * keys.size(); }
};

/// Calls `visit` with the area's quarters, or halves where a side is a single row or key.
template <typename Visit>
void for_quarters(const Area& area, const Visit& visit) {
  const auto middle = [](Range range) { return range.begin + (range.size() + 1) / 2; };
  const int64_t row = middle(area.rows), key = middle(area.keys);
  for (const Range rows : {Range{area.rows.begin, row}, Range{row, area.rows.end}}) {
    for (const Range keys : {Range{area.keys.begin, key}, Range{key, area.keys.end}}) {
      if (rows.size() > 0 && keys.size() > 0) visit(Area{area.b, area.h, rows, keys});
    }
  }
}

enum class Verdict { kHidden, kVisible, kOpen };

/// Whether all pairs of an area may attend, or none, or whether that stays open.
class MaskJudge {
 public:
  /// Throws std::invalid_argument for what is no mask, an unbound tensor, and a read outside of a
  /// tensor, wherever evaluate() would refuse it.
  MaskJudge(const Expression& mask, const BlockMaskOptions& options);

  /// 1 where the mask does not depend on b, or h.
  int64_t batches() const { return batches_; }
  int64_t heads() const { return heads_; }

  /// By intervals. A single pair is always decided, at last by evaluate().
  Verdict judge(const Area& area);
  int64_t judged() const { return judged_; }

  /// How many of the area's pairs may attend, by evaluate(): for areas of a few thousand pairs.
  int64_t count(const Area& area) const;

 private:
  bool evaluated(const Area& pair);
  at::Tensor evaluate_area(const Area& area) const;

  const Expression mask_;
  const BlockMaskOptions options_;
  IntervalProgram program_;
  int64_t batches_, heads_, judged_ = 0;
  Area tile_ = {};  // what was evaluated last, and its values
  at::Tensor tile_values_;
};

}  // namespace nanoflex::flex
