// A program's values while a unit of either pass runs: those of the lanes, those of the rows, and
// those of the pairs of a strip of rows.
#pragma once

#include "attention/cpu/interpreter.h"
#include "attention/cpu/tiles.h"

namespace nanoflex::cpu {
namespace {

/// Where a program runs: lanes are queries and rows keys, or the other way round.
struct TileShape {
  Vary lanes;
  int64_t lane_count, row_count;  ///< most of each that are held at once
};

template <typename Math, int kWidth>
class TileProgram {
  static constexpr int kLanes = Math::kLanes;
  using V = Vectors<kLanes>;
  using F = typename V::F;

 public:
  static constexpr int kStrip = 16;  // rows

 private:
  static constexpr int kRow = Math::kUnit == 1 ? kWidth : kLanes;  // as columns_of() lays them out
  static_assert(kStrip % kLanes == 0);
  using Interpreter = cpu::Interpreter<kLanes, kRow>;

 public:
  /// `program` may be null: then nothing is done or held.
  TileProgram(const Program* program, TileShape shape, Scratch& scratch)
      : program_(program), lanes_vary_(shape.lanes) {
    if (!program) return;
    rows_vary_ = lanes_vary_ == Vary::kQuery ? Vary::kKey : Vary::kQuery;
    lane_slot_ = rounded_up(shape.lane_count, kWidth);
    row_slot_ = rounded_up(shape.row_count + kStrip, kLanes);
    nothing_ = scratch.take<float>(slots(Vary::kNothing) * kStrip);
    lanes_ = scratch.take<float>(slots(lanes_vary_) * lane_slot_);
    rows_ = scratch.take<float>(slots(rows_vary_) * row_slot_);
    pairs_ = scratch.take<float>(slots(Vary::kPair) * kStrip * kWidth);
    visible_ = scratch.take<float>(kStrip * kWidth);
  }

  bool has_score() const { return program_ && program_->has_score; }

  /// Of this head; before any lanes and rows. `scale`: of q k^T.
  void start(int64_t b, int64_t h, float scale) {
    if (!program_) return;
    put(nothing_ + kBatchSlot * kStrip, static_cast<int32_t>(b));
    put(nothing_ + kHeadSlot * kStrip, static_cast<int32_t>(h));
    put(nothing_ + kScaleSlot * kStrip, __builtin_bit_cast(int32_t, scale));
    for (int32_t i = 0; i < program_->constant_count; ++i) {
      const Constant& constant = program_->constants[i];
      put(nothing_ + constant.slot * kStrip, constant.bits);
    }
    Interpreter interpreter;
    interpreter.nothing = nothing();
    interpreter.nothing.panel = kLanes;
    interpreter.width = kStrip;
    interpreter.run(program_->nothing);
  }

  /// Lanes first .. first + count, filled up to kWidth, of which position(i) is the i-th one's
  /// place among the keys.
  template <typename Position>
  void put_lanes(int64_t first, int64_t count, const Position& position) {
    if (!program_) return;
    const int64_t padded = rounded_up(count, kWidth);
    fill(lanes_ + kPositionSlot * lane_slot_ + first, count, padded, position);
    Interpreter interpreter;
    interpreter.nothing = nothing();
    of(interpreter, lanes_vary_) = {lanes_ + first, lane_slot_, kLanes, true};
    interpreter.width = static_cast<int>(padded);
    interpreter.run(code(lanes_vary_));
  }

  /// All the rows at once, in the same way.
  template <typename Position>
  void put_rows(int64_t count, const Position& position) {
    if (!program_) return;
    const int64_t padded = rounded_up(count, kLanes);
    fill(rows_ + kPositionSlot * row_slot_, count, padded, position);
    Interpreter interpreter;
    interpreter.nothing = nothing();
    of(interpreter, rows_vary_) = {rows_, row_slot_, kLanes, true};
    interpreter.width = static_cast<int>(padded);
    interpreter.run(code(rows_vary_));
  }

  /// Puts the program's scores in place of q k^T, and -inf where its mask forbids, in `rows` <=
  /// kStrip rows from `row`, on the lanes from `lane`. `cut`: whether the mask must be asked. Gives
  /// the score's derivative, in the backward pass.
  Columns<const float> run(Columns<float> scores, int row, int64_t lane, int rows, bool cut) {
    Interpreter interpreter = at(row, lane, rows);
    interpreter.scores = scores;
    Columns<const float> visible = interpreter.place(program_->visible);
    if (cut && program_->has_mask) {
      interpreter.run(program_->mask);
      if (program_->has_score) visible = keep(visible, rows);
    }
    if (program_->has_score) interpreter.run(program_->score);
    if (cut && program_->has_mask) {
      for_all(rows, [&](int n, int i) {
        float* score = panel_of(scores, n).from(i).data;
        const F seen = V::load(panel_of(visible, n).from(i).data);
        V::store(score, V::where(seen, V::load(score), -kInfinity));
      });
    }
    return interpreter.place(program_->derivative);
  }

  /// Rows of a strip of pairs.
  static Columns<float> strip(float* data) { return columns_of<Math>(data, kStrip, kWidth); }

  /// Adds to the sums of what the score read: `base`, a strip, is the gradient of the changed
  /// score. After run() on the same rows and lanes.
  void add_gradients(Columns<const float> base, int row, int64_t lane, int rows,
                     const GradientSums& sums) const {
    const Interpreter interpreter = at(row, lane, rows);
    for (int32_t i = 0; i < program_->read_count; ++i) {
      const Read& read = program_->reads[i];
      const Columns<float> index = interpreter.place(read.index);
      const Columns<float> derivative = interpreter.place(read.derivative);
      if (read.index.vary == Vary::kNothing || read.index.vary == rows_vary_) {
        add_row_sums(base, derivative, rows, index, read, sums);
      } else if (read.index.vary == lanes_vary_) {
        add_lane_sums(base, derivative, rows, index, read, sums);
      } else {
        for_all(rows, [&](int n, int row) {
          const F parts = part(base, derivative, n, row);
          const LooseInteger* at = integers(panel_of(index, n).from(row));
          for (int j = 0; j < kLanes; ++j) sums.add(read.offset + at[j], parts[j]);
        });
      }
    }
  }

 private:
  typedef int32_t LooseInteger __attribute__((may_alias));

  static void put(float* slot, int32_t bits) {
    for (int row = 0; row < kStrip; ++row) {
      reinterpret_cast<LooseInteger*>(slot)[row] = bits;
    }
  }

  // The last one fills up.
  template <typename Position>
  static void fill(float* out, int64_t count, int64_t padded, const Position& position) {
    auto* numbers = reinterpret_cast<LooseInteger*>(out);
    for (int64_t i = 0; i < padded; ++i) {
      numbers[i] = static_cast<int32_t>(position(smaller(i, count - 1)));
    }
  }

  int64_t slots(Vary vary) const { return program_->slots[static_cast<int>(vary)]; }
  CodeSpan code(Vary vary) const { return vary == Vary::kQuery ? program_->query : program_->key; }
  static Values& of(Interpreter& interpreter, Vary vary) {
    return vary == Vary::kQuery ? interpreter.query : interpreter.key;
  }
  Values nothing() const { return {nothing_, kStrip, 0, false}; }

  static const LooseInteger* integers(Columns<float> values) {
    return reinterpret_cast<const LooseInteger*>(values.data);
  }

  // Of each kLanes lanes and each row.
  template <typename Function>
  static void for_all(int rows, const Function& function) {
    for (int n = 0; n < kWidth / kLanes; ++n) {
      for (int row = 0; row < rows; ++row) function(n, row);
    }
  }

  Columns<const float> keep(Columns<const float> visible, int rows) const {
    const Columns<float> kept = strip(visible_);
    for_all(rows, [&](int n, int row) {
      V::store(panel_of(kept, n).from(row).data, V::load(panel_of(visible, n).from(row).data));
    });
    return kept;
  }

  // Over the pairs of some rows and kWidth lanes.
  Interpreter at(int row, int64_t lane, int rows) const {
    Interpreter interpreter;
    interpreter.nothing = nothing();
    of(interpreter, lanes_vary_) = {lanes_ + lane, lane_slot_, kLanes, true};
    of(interpreter, rows_vary_) = {rows_ + row, row_slot_, 0, false};
    interpreter.pair = {pairs_, kStrip * kWidth, strip(pairs_).panel, true};
    interpreter.rows = rows;
    interpreter.width = kWidth;
    return interpreter;
  }

  static F part(Columns<const float> base, Columns<const float> derivative, int n, int row) {
    const F b = V::load(panel_of(base, n).from(row).data);
    return b == 0.0f ? F{} : b * V::load(panel_of(derivative, n).from(row).data);
  }

  static void add_row_sums(Columns<const float> base, Columns<const float> derivative, int rows,
                           Columns<float> index, const Read& read, const GradientSums& sums) {
    for (int row = 0; row < rows; ++row) {
      F sum{};
      for (int n = 0; n < kWidth / kLanes; ++n) sum += part(base, derivative, n, row);
      double total = 0;
      for (int lane = 0; lane < kLanes; ++lane) total += sum[lane];
      sums.add(read.offset + integers(index)[row], total);
    }
  }

  static void add_lane_sums(Columns<const float> base, Columns<const float> derivative, int rows,
                            Columns<float> index, const Read& read, const GradientSums& sums) {
    for (int n = 0; n < kWidth / kLanes; ++n) {
      F sum{};
      for (int row = 0; row < rows; ++row) sum += part(base, derivative, n, row);
      const LooseInteger* at = integers(panel_of(index, n));
      for (int lane = 0; lane < kLanes; ++lane) sums.add(read.offset + at[lane], sum[lane]);
    }
  }

  const Program* program_;
  const Vary lanes_vary_;
  Vary rows_vary_ = Vary::kNothing;
  int64_t lane_slot_ = 0, row_slot_ = 0;
  float* nothing_ = nullptr;
  float* lanes_ = nullptr;
  float* rows_ = nullptr;
  float* pairs_ = nullptr;
  float* visible_ = nullptr;
};

}  // namespace
}  // namespace nanoflex::cpu
