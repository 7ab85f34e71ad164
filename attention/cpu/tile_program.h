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

template <int kLanes, int kWidth>
class TileProgram {
  using V = Vectors<kLanes>;
  using F = typename V::F;

 public:
  static constexpr int kStrip = 16;  // rows

  /// `program` may be null: then nothing is done or held.
  TileProgram(const Program* program, TileShape shape, Scratch& scratch)
      : program_(program), lanes_vary_(shape.lanes) {
    if (!program) return;
    rows_vary_ = lanes_vary_ == Vary::kQuery ? Vary::kKey : Vary::kQuery;
    lane_slot_ = rounded_up(shape.lane_count, kWidth);
    row_slot_ = rounded_up(shape.row_count + kStrip, kLanes);
    nothing_ = scratch.take<float>(slots(Vary::kNothing) * kLanes);
    lanes_ = scratch.take<float>(slots(lanes_vary_) * lane_slot_);
    rows_ = scratch.take<float>(slots(rows_vary_) * row_slot_);
    pairs_ = scratch.take<float>(slots(Vary::kPair) * kStrip * kWidth);
    visible_ = scratch.take<float>(kStrip * kWidth);
  }

  bool has_score() const { return program_ && program_->has_score; }

  /// Of this head; before any lanes and rows.
  void start(int64_t b, int64_t h) {
    if (!program_) return;
    put(nothing_ + kBatchSlot * kLanes, static_cast<int32_t>(b));
    put(nothing_ + kHeadSlot * kLanes, static_cast<int32_t>(h));
    for (int32_t i = 0; i < program_->constant_count; ++i) {
      const Constant& constant = program_->constants[i];
      put(nothing_ + constant.slot * kLanes, constant.bits);
    }
    Interpreter<kLanes> interpreter;
    interpreter.nothing = nothing();
    interpreter.run(program_->nothing);
  }

  /// Lanes first .. first + count, filled up to kWidth, of which position(i) is the i-th one's
  /// place among the keys.
  template <typename Position>
  void put_lanes(int64_t first, int64_t count, const Position& position) {
    if (!program_) return;
    const int64_t padded = rounded_up(count, kWidth);
    fill(lanes_ + kPositionSlot * lane_slot_ + first, count, padded, position);
    Interpreter<kLanes> interpreter;
    interpreter.nothing = nothing();
    of(interpreter, lanes_vary_) = {lanes_ + first, lane_slot_, 0, true};
    interpreter.width = static_cast<int>(padded);
    interpreter.run(code(lanes_vary_));
  }

  /// All the rows at once, in the same way.
  template <typename Position>
  void put_rows(int64_t count, const Position& position) {
    if (!program_) return;
    const int64_t padded = rounded_up(count, kLanes);
    fill(rows_ + kPositionSlot * row_slot_, count, padded, position);
    Interpreter<kLanes> interpreter;
    interpreter.nothing = nothing();
    of(interpreter, rows_vary_) = {rows_, row_slot_, 0, true};
    interpreter.width = static_cast<int>(padded);
    interpreter.run(code(rows_vary_));
  }

  /// What a strip of the tile gives: [rows, kWidth] each, or null where there is nothing to say.
  struct Strip {
    const float* changed = nullptr;  ///< scores
    const float* derivative = nullptr;
    const float* visible = nullptr;  ///< 0 or not
  };

  /// Runs on `rows` <= kStrip rows from `row`, on the lanes from `lane`. `scores`: products of q
  /// and k; `cut`: whether the mask must be asked.
  Strip run(Columns<const float> scores, float scale, int row, int64_t lane, int rows, bool cut) {
    Strip strip;
    Interpreter<kLanes> interpreter = at(row, lane, rows);
    if (cut && program_->has_mask) {
      interpreter.run(program_->mask);
      const float* visible = interpreter.place(program_->visible);
      for (int i = 0; i < rows * kWidth; i += kLanes) V::store(visible_ + i, V::load(visible + i));
      strip.visible = visible_;
    }
    if (program_->has_score) {
      float* scaled = pairs_ + kScoreSlot * kStrip * kWidth;
      for (int i = 0; i < rows; ++i) {
        for (int n = 0; n < kWidth; n += kLanes) {
          V::store(scaled + i * kWidth + n,
                   V::load(panel_of(scores, n / kLanes).from(i).data) * scale);
        }
      }
      interpreter.run(program_->score);
      strip.changed = interpreter.place(program_->changed);
      strip.derivative = interpreter.place(program_->derivative);
    }
    return strip;
  }

  /// Adds to the sums of what the score read: `base` [rows, kWidth] is the gradient of the changed
  /// score. After run() on the same strip.
  void add_gradients(const float* base, int row, int64_t lane, int rows,
                     const GradientSums& sums) const {
    const Interpreter<kLanes> interpreter = at(row, lane, rows);
    for (int32_t i = 0; i < program_->read_count; ++i) {
      const Read& read = program_->reads[i];
      const auto* index = reinterpret_cast<const LooseInteger*>(interpreter.place(read.index));
      const float* derivative = interpreter.place(read.derivative);
      if (read.index.vary == Vary::kNothing || read.index.vary == rows_vary_) {
        const bool each = read.index.vary == rows_vary_;
        add_row_sums(
            base, derivative, rows, [&](int r) { return index[each ? r : 0]; }, read, sums);
      } else if (read.index.vary == lanes_vary_) {
        add_lane_sums(base, derivative, rows, index, read, sums);
      } else {
        for (int at = 0; at < rows * kWidth; ++at) {
          const float part = base[at] == 0 ? 0 : base[at] * derivative[at];
          sums.add(read.offset + index[at], part);
        }
      }
    }
  }

 private:
  typedef int32_t LooseInteger __attribute__((may_alias));

  static void put(float* slot, int32_t bits) {
    for (int lane = 0; lane < kLanes; ++lane) {
      reinterpret_cast<LooseInteger*>(slot)[lane] = bits;
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
  static Values& of(Interpreter<kLanes>& interpreter, Vary vary) {
    return vary == Vary::kQuery ? interpreter.query : interpreter.key;
  }
  Values nothing() const { return {nothing_, kLanes, 0, false}; }

  // Over the pairs of some rows and kWidth lanes.
  Interpreter<kLanes> at(int row, int64_t lane, int rows) const {
    Interpreter<kLanes> interpreter;
    interpreter.nothing = nothing();
    of(interpreter, lanes_vary_) = {lanes_ + lane, lane_slot_, 0, true};
    of(interpreter, rows_vary_) = {rows_ + row, row_slot_, 1, false};
    interpreter.pair = {pairs_, kStrip * kWidth, kWidth, true};
    interpreter.rows = rows;
    interpreter.width = kWidth;
    return interpreter;
  }

  static F part(const float* base, const float* derivative, int at) {
    const F b = V::load(base + at);
    return b == 0.0f ? F{} : b * V::load(derivative + at);
  }

  template <typename Index>
  static void add_row_sums(const float* base, const float* derivative, int rows, const Index& index,
                           const Read& read, const GradientSums& sums) {
    for (int row = 0; row < rows; ++row) {
      F sum{};
      for (int n = 0; n < kWidth; n += kLanes) sum += part(base, derivative, row * kWidth + n);
      double total = 0;
      for (int lane = 0; lane < kLanes; ++lane) total += sum[lane];
      sums.add(read.offset + index(row), total);
    }
  }

  static void add_lane_sums(const float* base, const float* derivative, int rows,
                            const LooseInteger* index, const Read& read, const GradientSums& sums) {
    for (int n = 0; n < kWidth; n += kLanes) {
      F sum{};
      for (int row = 0; row < rows; ++row) sum += part(base, derivative, row * kWidth + n);
      for (int lane = 0; lane < kLanes; ++lane) sums.add(read.offset + index[n + lane], sum[lane]);
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
