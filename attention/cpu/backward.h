// The backward tile kernel: Dao, "FlashAttention-2", arXiv:2307.08691, Algorithm 2, with keys as
// vector lanes. A unit keeps a block of keys and its dk and dv; for each block of queries
//   s = q k^T, dp = dO v^T [queries, keys];  p = 2^(c (s - m)) / l;  ds = p (dp - delta)
//   dv += p^T dO;  dk += ds^T q;  dq += ds k
#pragma once

#include <sched.h>

#include "attention/cpu/dropout.h"
#include "attention/cpu/tile_program.h"

namespace nanoflex::cpu {
namespace {

constexpr int kBackwardKeys = 96;     // of a unit, at most
constexpr int kBackwardQueries = 48;  // of a block

template <typename Math, typename Input>
class Backward {
  using V = Vectors<Math::kLanes>;
  using F = typename V::F;
  using Element = typename Math::Element;
  static constexpr int kWidth = Math::kLanes * Math::kVectors;
  using Programmed = TileProgram<Math::kLanes, kWidth>;
  static constexpr int kStrip = Programmed::kStrip;

 public:
  static constexpr int kKeys = (kBackwardKeys + kWidth - 1) / kWidth * kWidth;
  static constexpr int kQueries = kBackwardQueries;

  Backward(const Problem& problem, const BackwardUnit& unit, Scratch& scratch)
      : p_(problem),
        unit_(unit),
        tiles_(problem, kQueries),
        key_(unit.index * unit.keys_per_unit),
        keys_(static_cast<int>(smaller(unit.keys_per_unit, problem.S - key_))),
        width_(static_cast<int>(rounded_up(keys_, kWidth))),
        steps_((problem.D + Math::kPair - 1) / Math::kPair),
        D_(static_cast<int>(rounded_up(problem.D, Math::kLanes))),
        k_columns_(scratch.take<Element>(kKeys * steps_)),
        v_columns_(scratch.take<Element>(kKeys * steps_)),
        k_stacked_(scratch.take<Element>(kKeys * D_)),
        dk_(scratch.take<float>(kKeys * D_)),
        dv_(scratch.take<float>(kKeys * D_)),
        dq_(scratch.take<float>(kQueries * D_)),
        p_tile_(scratch.take<float>(kQueries * kKeys)),
        ds_tile_(scratch.take<float>(kQueries * kKeys)),
        keep_(scratch.take<float>(p_.dropout ? kQueries * kKeys : 0)),
        ds_rows_(scratch.take<Element>(kQueries * kKeys)),
        q_scratch_(scratch.take<Element>(kQueries * D_)),
        do_scratch_(scratch.take<Element>(kQueries * D_)),
        q_stacked_(scratch.take<Element>(kQueries * D_)),
        do_stacked_(scratch.take<Element>(kQueries * D_)),
        base_(scratch.take<float>(kStrip * kWidth)),
        program_(problem.program, {Vary::kKey, kKeys, kQueries}, scratch) {}

  void run() {
    open();
    const int64_t group = p_.H / p_.H_kv;
    for (int64_t h = unit_.h_kv * group; h < (unit_.h_kv + 1) * group; ++h) {
      program_.start(unit_.b, h);
      program_.put_lanes(0, keys_, [&](int64_t lane) { return key_ + lane; });
      for (int64_t i = 0; i < tiles_.count(); ++i) {
        const int64_t row = tiles_.row(i), rows = tiles_.rows(i);
        if (sees_any(p_, {unit_.b, h, row, rows, key_, keys_})) {
          take_queries(h, i, row, static_cast<int>(rows));
        }
      }
    }
    close();
  }

 private:
  void open() {
    const Input* k = row_of<const Input>(p_.k, unit_.b, unit_.h_kv, key_);
    const Input* v = row_of<const Input>(p_.v, unit_.b, unit_.h_kv, key_);
    for (int64_t i = 0; i < steps_ * width_; ++i) k_columns_[i] = v_columns_[i] = 0;
    put_columns<Math, Input>([&](int64_t key) { return k + key * p_.k.row; }, keys_, p_.D, width_,
                             k_columns_);
    put_columns<Math, Input>([&](int64_t key) { return v + key * p_.v.row; }, keys_, p_.D, width_,
                             v_columns_);
    k_rows_ = stacked_rows<Math>(k, p_.k.row, keys_, p_.D, D_, true, k_stacked_);
    for (int64_t i = 0; i < static_cast<int64_t>(width_) * D_; ++i) dk_[i] = dv_[i] = 0;
  }

  void take_queries(int64_t h, int64_t tile, int64_t row, int rows) {
    const Input* q = row_of<const Input>(p_.q, unit_.b, h, row);
    const Input* d_o = row_of<const Input>(p_.d_o, unit_.b, h, row);
    const auto q_left = left_rows<Math>(q, p_.q.row, rows, p_.D, q_scratch_);
    const auto do_left = left_rows<Math>(d_o, p_.d_o.row, rows, p_.D, do_scratch_);
    const auto q_right = stacked_rows<Math>(q, p_.q.row, rows, p_.D, D_, true, q_stacked_);
    const auto do_right = stacked_rows<Math>(d_o, p_.d_o.row, rows, p_.D, D_, true, do_stacked_);
    if (p_.dropout) draw(h, row, rows);
    program_.put_rows(rows, [&](int64_t i) { return row + i + p_.S - p_.T; });
    for (int n = 0; n < width_; n += kWidth) {
      auto [begin, end] = seeing_rows(row, rows, n);
      const Sight seen =
          sight(p_.blocks, {unit_.b, h, row, rows, key_ + n, smaller(kWidth, keys_ - n)});
      if (seen == Sight::kNone) begin = end = 0;
      clear(0, begin, n);
      clear(end, rows, n);
      if (begin == end) continue;
      const int count = end - begin, pairs = (count + Math::kPair - 1) / Math::kPair;
      float* p = p_tile_ + begin * width_ + n;
      float* ds = ds_tile_ + begin * width_ + n;
      multiply<Math>(count, kWidth, static_cast<int>(steps_),
                     {q_left.data + begin * q_left.row, q_left.row, 1}, k_columns_ + n, width_, p,
                     width_, false);
      multiply<Math>(count, kWidth, static_cast<int>(steps_),
                     {do_left.data + begin * do_left.row, do_left.row, 1}, v_columns_ + n, width_,
                     ds, width_, false);
      differentiate(h, row, {begin, end}, n, seen == Sight::kSome);
      const int lanes = smaller(kWidth, keys_ - n);
      const ptrdiff_t first = begin / Math::kPair;
      multiply<Math>(lanes, D_, pairs, {left(p_tile_) + first * width_ + n, 1, width_},
                     do_right.data + first * do_right.step, do_right.step, dv_ + n * D_, D_, true);
      multiply<Math>(lanes, D_, pairs, {left(ds_tile_) + first * width_ + n, 1, width_},
                     q_right.data + first * q_right.step, q_right.step, dk_ + n * D_, D_, true);
    }
    const Element* ds = Math::kPair == 1 ? left(ds_tile_) : ds_rows_;
    multiply<Math>(rows, D_, (keys_ + Math::kPair - 1) / Math::kPair, {ds, width_ / Math::kPair, 1},
                   k_rows_.data, k_rows_.step, dq_, D_, false);
    add_to_dq(h, tile, row, rows);
  }

  static const Element* left(const float* tile) { return reinterpret_cast<const Element*>(tile); }

  struct RowRange {
    int begin, end;
  };
  // The rows of the block that see any of the panel's keys; begins with a pair.
  RowRange seeing_rows(int64_t row, int rows, int n) const {
    const int64_t shift = p_.S - p_.T, last = smaller<int64_t>(key_ + n + kWidth, p_.S) - 1;
    const int64_t begin = larger<int64_t>(key_ + n - p_.right - shift - row, 0);
    const int64_t end = smaller<int64_t>(last + p_.left - shift - row + 1, rows);
    if (begin >= end) return {0, 0};
    return {static_cast<int>(begin / Math::kPair * Math::kPair), static_cast<int>(end)};
  }

  // Zeros for the product with k, where the panel's keys are not seen.
  void clear(int begin, int end, int n) {
    for (int row = begin; row < end; ++row) {
      for (int i = 0; i < kWidth; ++i) {
        if constexpr (Math::kPair == 1) {
          ds_tile_[row * width_ + n + i] = 0;
        } else {
          reinterpret_cast<uint16_t*>(ds_rows_)[row * width_ + n + i] = 0;
        }
      }
    }
  }

  // p_tile: s -> p;  ds_tile: dp -> ds, both as pairs of rows where products take pairs. `cut`:
  // whether the program's mask must be asked.
  void differentiate(int64_t h, int64_t row, RowRange range, int n, bool cut) {
    const bool programmed = cut || program_.has_score();
    const int step = programmed ? kStrip : range.end - range.begin;
    for (int begin = range.begin; begin < range.end; begin += step) {
      const int end = smaller(begin + step, range.end);
      strip_ = {};
      if (programmed) {
        strip_.result = program_.run(p_tile_ + begin * width_ + n, width_, p_.scale, begin, n,
                                     end - begin, cut);
        strip_.row = begin, strip_.lane = n;
      }
      differentiate_rows(h, row, begin, end, n);
      if (unit_.sums.sums) program_.add_gradients(base_, begin, n, end - begin, unit_.sums);
    }
  }

  void differentiate_rows(int64_t h, int64_t row, int begin, int end, int n) {
    for (int i = begin; i < end; i += 2) {
      const bool two = i + 1 < end;
      for (int lane = n; lane < n + kWidth; lane += Math::kLanes) {
        const Weights first = weights(h, row, i, lane);
        const Weights second = two ? weights(h, row, i + 1, lane) : Weights{};
        if constexpr (Math::kPair == 1) {
          put_row(i, lane, first);
          if (two) put_row(i + 1, lane, second);
        } else {
          const int64_t at = i / 2 * width_ + lane;
          V::store(reinterpret_cast<uint32_t*>(p_tile_) + at, V::pair(first.p, second.p));
          V::store(reinterpret_cast<uint32_t*>(ds_tile_) + at, V::pair(first.ds, second.ds));
          auto* rows = reinterpret_cast<uint16_t*>(ds_rows_) + lane;
          V::store(rows + i * width_, V::narrow(first.ds));
          if (two) V::store(rows + (i + 1) * width_, V::narrow(second.ds));
        }
      }
    }
  }

  struct Weights {
    F p{}, ds{};
  };
  Weights weights(int64_t h, int64_t row, int i, int lane) {
    const int64_t at = (unit_.b * p_.H + h) * p_.T + row + i;
    const float maximum = p_.denominator[at], log2_sum = p_.denominator[p_.B * p_.H * p_.T + at];
    const auto& changed = strip_.result;
    const int place = (i - strip_.row) * kWidth + lane - strip_.lane;
    F s = V::load(changed.changed ? changed.changed + place : p_tile_ + i * width_ + lane);
    s = (s - maximum) * (p_.softmax_scale * kLog2E) - log2_sum;
    if (changed.visible) s = V::where(V::load(changed.visible + place), s, -kInfinity);
    const KeyRange keys = visible_keys(p_, row + i);
    const int64_t first = key_ + lane;
    if (keys.begin > first || keys.end < first + Math::kLanes) {
      const auto number = V::iota() + static_cast<int32_t>(first);
      const auto seen =
          (number >= static_cast<int32_t>(keys.begin)) & (number < static_cast<int32_t>(keys.end));
      s = seen != 0 ? s : V::broadcast(-kInfinity);
    }
    F p = V::exp2(s), dp = V::load(ds_tile_ + i * width_ + lane), kept = p;
    if (p_.dropout) {
      const F keep = V::load(keep_ + i * width_ + lane);
      kept = p * keep;
      dp = dp * keep;
    }
    F ds = p * (dp - p_.delta[at]);
    if (changed.changed) {
      V::store(base_ + place, ds);
      // Where nothing comes in nothing goes on, whatever the derivative is there.
      ds = ds == 0.0f ? F{} : ds * V::load(changed.derivative + place);
    }
    return {kept, ds};
  }

  void put_row(int i, int lane, const Weights& weights) {
    V::store(p_tile_ + i * width_ + lane, weights.p);
    V::store(ds_tile_ + i * width_ + lane, weights.ds);
  }

  // keep: 0 for dropped pairs, 1 / (1 - probability) for kept ones.
  void draw(int64_t h, int64_t row, int rows) {
    const auto head = static_cast<uint32_t>(unit_.b * p_.H + h);
    for (int i = 0; i < rows; ++i) {
      for (int64_t group = key_ / 4 * 4; group < key_ + width_; group += 4) {
        const PhiloxWords words = dropout_words(p_.seed, head, static_cast<uint32_t>(row + i),
                                                static_cast<uint32_t>(group));
        for (int word = 0; word < 4; ++word) {
          const int64_t lane = group + word - key_;
          if (lane < 0 || lane >= width_) continue;
          keep_[i * width_ + lane] = words.word[word] < p_.threshold ? 0 : p_.keep_scale;
        }
      }
    }
  }

  void add_to_dq(int64_t h, int64_t tile, int64_t row, int rows) {
    const int64_t head = unit_.b * p_.H + h;
    uint32_t* turn = unit_.turn + head * tiles_.count() + tile;
    const auto mine = static_cast<uint32_t>(unit_.index);
    for (int spin = 0; __atomic_load_n(turn, __ATOMIC_ACQUIRE) != mine;) {
      if (++spin > 1000) sched_yield();
    }
    float* out = p_.dq + (head * p_.T + row) * p_.D;
    for (int i = 0; i < rows; ++i) {
      const float* from = dq_ + i * D_;
      for (int64_t d = 0; d < p_.D; ++d) out[i * p_.D + d] += from[d] * p_.scale;
    }
    const int64_t next =
        next_unit(p_, {unit_.b, h, row, rows, 0, unit_.keys_per_unit}, unit_.index + 1);
    __atomic_store_n(turn, static_cast<uint32_t>(next), __ATOMIC_RELEASE);
  }

  void close() {
    for (int key = 0; key < keys_; ++key) {
      Input* dk = row_of<Input>(p_.dk, unit_.b, unit_.h_kv, key_ + key);
      Input* dv = row_of<Input>(p_.dv, unit_.b, unit_.h_kv, key_ + key);
      for (int64_t d = 0; d < p_.D; ++d) {
        put(dk + d, dk_[key * D_ + d] * p_.scale);
        put(dv + d, dv_[key * D_ + d]);
      }
    }
  }

  const Problem& p_;
  const BackwardUnit& unit_;
  const QueryTiles tiles_;
  const int64_t key_;
  const int keys_, width_;  // width: keys, filled up to whole panels
  const int64_t steps_;
  const int D_;         // filled up to whole vectors
  Element* k_columns_;  // [steps, width]
  Element* v_columns_;
  Element* k_stacked_;
  Operand<Element> k_rows_{};
  float* dk_;  // [keys, D]
  float* dv_;
  float* dq_;       // [queries, D]
  float* p_tile_;   // [queries, width]: s, then p
  float* ds_tile_;  // dp, then ds
  float* keep_;
  Element* ds_rows_;  // ds with pairs along the keys
  Element* q_scratch_;
  Element* do_scratch_;
  Element* q_stacked_;
  Element* do_stacked_;
  struct {
    typename Programmed::Strip result;  // all null: no program
    int row = 0, lane = 0;
  } strip_;
  float* base_;  // of the strip, [rows, kWidth]: gradient of the changed scores
  Programmed program_;
};

}  // namespace
}  // namespace nanoflex::cpu
