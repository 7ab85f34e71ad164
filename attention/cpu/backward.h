// The backward tile kernel: Dao, "FlashAttention-2", arXiv:2307.08691, Algorithm 2, with keys as
// vector lanes. A unit keeps a block of keys and its dk and dv; for each block of queries
//   s = q k^T, dp = dO v^T [queries, keys];  p = 2^(c (s - m)) / l;  ds = p (dp - delta)
//   dv^T += dO^T p;  dk^T += q^T ds;  dq += ds k
// A panel is as many keys as a product has columns.
#pragma once

#include <sched.h>

#include <type_traits>

#include "attention/cpu/dropout.h"
#include "attention/cpu/tile_program.h"
#include "attention/cpu/weighed_product.h"

namespace nanoflex::cpu {
namespace {

// Keys of a unit and queries of a block, at most. Tile registers are fast enough for what a block
// costs to be laid out to count, so that more keys share it.
template <typename Math>
constexpr int kBackwardKeys = Math::kUnit == 1 ? 96 : 384;
template <typename Math>
constexpr int kBackwardQueries = Math::kUnit == 1 ? 48 : 128;

template <typename Math, typename Input>
class Backward {
  using V = Vectors<Math::kLanes>;
  using F = typename V::F;
  using Element = typename Math::Element;
  static constexpr int kWidth = Math::kLanes * Math::kVectors;
  using Programmed = TileProgram<Math, kWidth>;
  static constexpr int kStrip = Programmed::kStrip;
  static constexpr int kStep = Math::kUnit * Math::kPair;  // of queries in a product
  static constexpr bool kShort = Math::kPair == 2;         // weights are rounded to bf16

 public:
  static constexpr int kKeys = (kBackwardKeys<Math> + kWidth - 1) / kWidth * kWidth;
  static constexpr int kQueries = kBackwardQueries<Math>;

  Backward(const Problem& problem, const BackwardUnit& unit, Scratch& scratch)
      : p_(problem),
        unit_(unit),
        tiles_(problem, kQueries),
        key_(unit.index * unit.keys_per_unit),
        keys_(static_cast<int>(smaller(unit.keys_per_unit, problem.S - key_))),
        width_(static_cast<int>(rounded_up(keys_, kWidth))),
        steps_(static_cast<int>(steps_of<Math>(problem.D))),
        depth_(static_cast<int>(rounded_up(problem.D, Math::kUnit))),
        D_(static_cast<int>(rounded_up(problem.D, Math::kLanes))),
        exponent_(p_.softmax_scale * kLog2E),
        k_columns_(scratch.take<Element>(kKeys * steps_)),
        v_columns_(scratch.take<Element>(kKeys * steps_)),
        k_stacked_(scratch.take<Element>(kKeys * D_)),
        dk_(scratch.take<float>(kKeys * depth_)),
        dv_(scratch.take<float>(kKeys * depth_)),
        dq_(scratch.take<float>(kQueries * D_)),
        p_tile_(scratch.take<float>(kQueries * kWidth)),
        ds_tile_(scratch.take<float>(kQueries * kWidth)),
        keep_(scratch.take<float>(p_.dropout ? kQueries * kKeys : 0)),
        ds_rows_(scratch.take<Element>(kQueries * kKeys)),
        q_scratch_(scratch.take<Element>(kQueries * larger<int64_t>(steps_, D_))),
        do_scratch_(scratch.take<Element>(kQueries * larger<int64_t>(steps_, D_))),
        q_stacked_(scratch.take<Element>(kQueries * D_)),
        do_stacked_(scratch.take<Element>(kQueries * D_)),
        base_(scratch.take<float>(kStrip * kWidth)),
        program_(problem.program, {Vary::kKey, kKeys, kQueries}, scratch) {}

  void run() {
    do {
      take_keys();
    } while (!close() && !std::exchange(again_, true));
  }

 private:
  void take_keys() {
    open();
    const int64_t group = p_.H / p_.H_kv;
    for (int64_t h = unit_.h_kv * group; h < (unit_.h_kv + 1) * group; ++h) {
      program_.start(unit_.b, h, p_.scale);
      program_.put_lanes(0, keys_, [&](int64_t lane) { return key_ + lane; });
      // Last rows first: those that the unit before this one sees too come last here and first
      // there, so that neither waits long for its turn.
      for (int64_t i = tiles_.count() - 1; i >= 0; --i) {
        const int64_t row = tiles_.row(i), rows = tiles_.rows(i);
        if (sees_any(p_, {unit_.b, h, row, rows, key_, keys_})) {
          take_queries(h, i, row, static_cast<int>(rows));
        }
      }
    }
  }

  void open() {
    const Input* k = row_of<const Input>(p_.k, unit_.b, unit_.h_kv, key_);
    const Input* v = row_of<const Input>(p_.v, unit_.b, unit_.h_kv, key_);
    for (Element* columns : {k_columns_, v_columns_}) {
      if (keys_ < width_) __builtin_memset(columns, 0, sizeof(Element) * steps_ * width_);
    }
    put_columns<Math, Input>([&](int64_t key) { return k + key * p_.k.row; }, keys_, p_.D,
                             columns(k_columns_, 0));
    put_columns<Math, Input>([&](int64_t key) { return v + key * p_.v.row; }, keys_, p_.D,
                             columns(v_columns_, 0));
    lay_key_rows();
    finite_ = finite_rows<Math::kLanes>(k, p_.k.row, keys_, p_.D);
    spoilt_ = again_ || unit_.sums.sums || !finite_rows<Math::kLanes>(v, p_.v.row, keys_, p_.D);
    for (bool& fresh : fresh_) fresh = true;
  }

  void lay_key_rows() {
    k_rows_ = stacked_rows<Math>(row_of<const Input>(p_.k, unit_.b, unit_.h_kv, key_), p_.k.row,
                                 keys_, p_.D, D_, true, k_stacked_);
  }

  void take_queries(int64_t h, int64_t tile, int64_t row, int rows) {
    const Input* q = row_of<const Input>(p_.q, unit_.b, h, row);
    const Input* d_o = row_of<const Input>(p_.d_o, unit_.b, h, row);
    const auto q_left = left_rows<Math>(q, p_.q.row, rows, p_.D, q_scratch_);
    const auto do_left = left_rows<Math>(d_o, p_.d_o.row, rows, p_.D, do_scratch_);
    const auto lay_q = [&] { return left_columns<Math>(q, p_.q.row, rows, p_.D, q_stacked_); };
    const auto lay_do = [&] {
      return left_columns<Math>(d_o, p_.d_o.row, rows, p_.D, do_stacked_);
    };
    const auto q_columns = lay_q(), do_columns = lay_do();
    if (p_.dropout) draw(h, row, rows);
    program_.put_rows(rows, [&](int64_t i) { return row + i + p_.S - p_.T; });
    int first = 0, last = 0;  // keys of the unit that some query of the block sees
    for (int n = 0; n < width_; n += kWidth) {
      auto [begin, end] = seeing_rows(row, rows, n);
      const Sight seen =
          sight(p_.blocks, {unit_.b, h, row, rows, key_ + n, smaller(kWidth, keys_ - n)});
      if (seen == Sight::kNone) begin = end = 0;
      if (begin == end && last == 0) continue;
      clear(0, begin, n);
      clear(end, rows, n);
      if (begin == end) continue;
      if (last == 0) first = n;
      last = smaller(n + kWidth, keys_);
      const auto part = [from = begin](const Operand<Element>& left) {
        return Operand<Element>{left.data + from * left.row, left.row, left.step};
      };
      const int count = static_cast<int>(rounded_up(end - begin, Math::kUnit));
      multiply<Math>(count, kWidth, steps_, part(q_left), columns(k_columns_, n),
                     tile_of(p_tile_).from(begin), false);
      multiply<Math>(count, kWidth, steps_, part(do_left), columns(v_columns_, n),
                     tile_of(ds_tile_).from(begin), false);
      differentiate(h, row, {begin, end}, n, seen == Sight::kSome);
      add_products(do_columns, pairs(p_tile_), {begin, end}, dv_, n, do_stacked_, lay_do);
      if constexpr (Math::kPair == 1) {
        add_products(q_columns, {ds_rows_ + n, width_, Math::kLanes}, {begin, end}, dk_, n,
                     q_stacked_, lay_q);
      } else {
        add_products(q_columns, pairs(ds_tile_), {begin, end}, dk_, n, q_stacked_, lay_q);
      }
      fresh_[n / kWidth] = false;
    }
    if (again_) return;
    if (last > 0) multiply_keys(rows, first, last);
    add_to_dq(h, tile, row, rows, last > 0);
  }

  // dq = ds k over the unit's keys first .. last.
  void multiply_keys(int rows, int first, int last) {
    const int step = first / Math::kPair;
    const int M = static_cast<int>(rounded_up(rows, Math::kUnit));
    const int steps = static_cast<int>(steps_of<Math>(last - first));
    const Operand<Element> left = {ds_rows_ + step, width_ / Math::kPair, 1};
    if (finite_) {
      multiply<Math>(M, D_, steps, left, k_rows_.from(step), dq(), false);
    } else {
      multiply_weighed<Math, Weighs::kLeft>(M, D_, steps, left, k_rows_.from(step), dq(), false,
                                            k_stacked_, kKeys * D_, [&] { lay_key_rows(); });
    }
  }

  // The panel's sums [depth, panel] += left right over the rows of `range`; right: [queries,
  // panel], or pairs. lay(): lays `left` out, in `laid` where it is of pairs.
  template <typename Lay>
  void add_products(const Operand<Element>& left, Columns<Element> right, RowRange range,
                    float* all, int n, Element* laid, const Lay& lay) {
    const int64_t first = range.begin / Math::kPair;
    const auto rows = right.from(first);
    const int steps = fill_up<Math>(rows, kWidth, range.end - range.begin);
    const Operand<Element> part = {left.data + first * left.step, left.row, left.step};
    const bool accumulate = !fresh_[n / kWidth];
    if (again_) {
      multiply_weighed<Math, Weighs::kRight>(depth_, kWidth, steps, part, rows, sums(all, n),
                                             accumulate, laid, kQueries * D_, lay);
    } else {
      multiply<Math>(depth_, kWidth, steps, part, rows, sums(all, n), accumulate);
    }
  }

  // From the n-th key on: [steps, keys], [depth, keys].
  Columns<Element> columns(Element* all, int n) const {
    return panel_of(columns_of<Math>(all, steps_, width_), n / Math::kLanes);
  }
  Columns<float> sums(float* all, int n) const {
    return panel_of(columns_of<Math>(all, depth_, width_), n / Math::kLanes);
  }
  // [queries, panel], or the same place as pairs of queries.
  static Columns<float> tile_of(float* all) { return columns_of<Math>(all, kQueries, kWidth); }
  static Columns<Element> pairs(float* all) {
    return columns_of<Math>(reinterpret_cast<Element*>(all), kQueries, kWidth);
  }
  Columns<float> base() const { return Programmed::strip(base_); }
  Columns<float> dq() const { return columns_of<Math>(dq_, kQueries, D_); }

  // The rows of the block that see any of the panel's keys; begins with a step of a product.
  RowRange seeing_rows(int64_t row, int rows, int n) const {
    const int64_t first = key_ + n, last = smaller<int64_t>(first + kWidth, p_.S) - 1;
    const auto keys = [&](int64_t i) { return visible_keys(p_, unit_.b, row + i); };
    const int begin = first_of(rows, [&](int64_t i) { return keys(i).end > first; });
    const int end = first_of(rows, [&](int64_t i) { return keys(i).begin > last; });
    if (begin >= end) return {0, 0};
    return {begin / kStep * kStep, end};
  }

  // The first of 0 .. count for which a condition holds that holds from there on.
  template <typename Condition>
  static int first_of(int count, const Condition& condition) {
    int begin = 0;
    for (int end = count; begin < end;) {
      const int middle = (begin + end) / 2;
      condition(middle) ? end = middle : begin = middle + 1;
    }
    return begin;
  }

  // Zeros for the product with k, where the panel's keys are not seen.
  void clear(int begin, int end, int n) {
    using Stored = std::conditional_t<Math::kPair == 1, Element, uint16_t>;
    auto* rows = reinterpret_cast<Stored*>(ds_rows_);
    for (int row = begin; row < end; ++row) {
      for (int i = 0; i < kWidth; ++i) rows[row * width_ + n + i] = 0;
    }
  }

  // From s in p_tile and dp in ds_tile: p in p_tile, ds in ds_rows; where products take pairs, p
  // and ds as pairs of rows in the tiles. `cut`: whether the program's mask must be asked.
  void differentiate(int64_t h, int64_t row, RowRange range, int n, bool cut) {
    const bool programmed = cut || program_.has_score();
    const int step = programmed ? kStrip : range.end - range.begin;
    for (int begin = range.begin; begin < range.end; begin += step) {
      const int end = smaller(begin + step, range.end);
      if (programmed) {
        derivative_ = program_.run(tile_of(p_tile_).from(begin), begin, n, end - begin, cut);
        strip_ = begin;
      }
      spoilt_ ? differentiate_rows<true>(h, row, begin, end, n)
              : differentiate_rows<false>(h, row, begin, end, n);
      if (again_ || !unit_.sums.sums) continue;
      program_.add_gradients(base(), begin, n, end - begin, unit_.sums);
    }
  }

  template <bool kSpoilt>
  void differentiate_rows(int64_t h, int64_t row, int begin, int end, int n) {
    const Changes changes = {.scored = program_.has_score(), .dropped = p_.dropout};
    for (int i = begin; i < end; i += 2) {
      const Row first = row_at(h, row, i, n), second = row_at(h, row, i + (i + 1 < end), n);
      for (int lane = 0; lane < kWidth; lane += Math::kLanes) {
        const Weights a = weights<kSpoilt>(first, lane, changes);
        const Weights b = i + 1 < end ? weights<kSpoilt>(second, lane, changes) : Weights{};
        if constexpr (Math::kPair == 1) {
          put_row(i, n, lane, a);
          if (i + 1 < end) put_row(i + 1, n, lane, b);
        } else {
          const int at = lane / Math::kLanes;
          V::store(panel_of(pairs(p_tile_), at).from(i / 2).data, V::pair(a.p, b.p));
          V::store(panel_of(pairs(ds_tile_), at).from(i / 2).data, V::pair(a.ds, b.ds));
          auto* rows = reinterpret_cast<uint16_t*>(ds_rows_) + i * width_ + n + lane;
          V::store(rows, V::narrow(a.ds));
          if (i + 1 < end) V::store(rows + width_, V::narrow(b.ds));
        }
      }
    }
  }

  // What a row's weights need beside the tiles.
  struct Row {
    int at, n;                                // in the block; the panel's first key in the unit
    float maximum, log2_sum, shifted, delta;  // shifted: the first two as one power of 2
    int32_t begin, end;                       // of the panel, lanes that it sees
  };
  Row row_at(int64_t h, int64_t row, int i, int n) const {
    const int64_t at = (unit_.b * p_.H + h) * p_.T + row + i, first = key_ + n;
    const KeyRange keys = visible_keys(p_, unit_.b, row + i);
    const float maximum = p_.denominator[at], log2_sum = p_.denominator[p_.B * p_.H * p_.T + at];
    return {.at = i,
            .n = n,
            .maximum = maximum,
            .log2_sum = log2_sum,
            .shifted = maximum * exponent_ + log2_sum,
            .delta = p_.delta[at],
            .begin = static_cast<int32_t>(larger<int64_t>(keys.begin - first, 0)),
            .end = static_cast<int32_t>(
                larger<int64_t>(smaller<int64_t>(keys.end - first, kWidth), 0))};
  }

  struct Weights {
    F p{}, ds{};
  };
  // What changes them beside the softmax.
  struct Changes {
    bool scored, dropped;
  };
  // kSpoilt: s and dp may be anything where a row does not see a key, and so may be what stands for
  // the row.
  template <bool kSpoilt>
  Weights weights(const Row& row, int lane, Changes changes) {
    const auto at = [&](float* all) {
      return V::load(panel_of(tile_of(all), lane / Math::kLanes).from(row.at).data);
    };
    F s = at(p_tile_);
    const auto hidden = s == -kInfinity;
    if constexpr (kShort) {
      s = s * exponent_ - row.shifted;
    } else {
      s = (s - row.maximum) * exponent_ - row.log2_sum;
    }
    if (row.begin > lane || row.end < lane + Math::kLanes) {
      const auto number = V::iota() + lane;
      const auto seen = (number >= row.begin) & (number < row.end);
      s = seen != 0 ? s : V::broadcast(-kInfinity);
    }
    if constexpr (kSpoilt) s = hidden ? V::broadcast(-kInfinity) : s;
    F p = V::template exp2<kShort>(s), dp = at(ds_tile_), kept = p;
    if (changes.dropped) {
      const F keep = V::load(keep_ + row.at * width_ + row.n + lane);
      kept = p * keep;
      dp = dp * keep;
    }
    F ds = p * (dp - row.delta);
    if constexpr (kSpoilt) ds = p == 0.0f ? F{} : ds;
    if (changes.scored) {
      const auto of_strip = [&](const auto& all) {
        return panel_of(all, lane / Math::kLanes).from(row.at - strip_).data;
      };
      V::store(of_strip(base()), ds);
      // Where nothing comes in nothing goes on, whatever the derivative is there.
      ds = ds == 0.0f ? F{} : ds * V::load(of_strip(derivative_));
    }
    return {kept, ds};
  }

  void put_row(int i, int n, int lane, const Weights& weights) {
    V::store(panel_of(tile_of(p_tile_), lane / Math::kLanes).from(i).data, weights.p);
    V::store(ds_rows_ + i * width_ + n + lane, weights.ds);
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

  // In the units' order; also where there is nothing to add the next one's turn comes. The last one
  // to see the rows writes dq.
  void add_to_dq(int64_t h, int64_t tile, int64_t row, int rows, bool any) {
    const int64_t head = unit_.b * p_.H + h;
    const Tile all = {unit_.b, h, row, rows, 0, unit_.keys_per_unit};
    const bool first = next_unit(p_, all, 0) == unit_.index;
    const int64_t next = next_unit(p_, all, unit_.index + 1);
    uint32_t* turn = unit_.turn + head * tiles_.count() + tile;
    const auto mine = static_cast<uint32_t>(unit_.index);
    for (int spin = 0; __atomic_load_n(turn, __ATOMIC_ACQUIRE) != mine;) {
      if (++spin > 1000) sched_yield();
    }
    for (int i = 0; i < rows; ++i) {
      float* sums = p_.dq_sums + (head * p_.T + row + i) * p_.D;
      Input* done =
          next * unit_.keys_per_unit < p_.S ? nullptr : row_of<Input>(p_.dq, unit_.b, h, row + i);
      for (int64_t d = 0; d < p_.D; d += Math::kLanes) {
        const float* from = panel_of(dq(), d / Math::kLanes).from(i).data;
        const F part = any ? V::load(from) * p_.scale : F{};
        if (d + Math::kLanes <= p_.D) {
          const F sum = first ? part : V::load(sums + d) + part;
          if (!done) {
            V::store(sums + d, sum);
          } else if constexpr (sizeof(Input) == sizeof(float)) {
            V::store(done + d, sum);
          } else {
            V::store(done + d, V::narrow(sum));
          }
        } else {
          for (int j = 0; d + j < p_.D; ++j) {
            const float sum = first ? part[j] : sums[d + j] + part[j];
            done ? put(done + d + j, sum) : put(sums + d + j, sum);
          }
        }
      }
    }
    __atomic_store_n(turn, static_cast<uint32_t>(next), __ATOMIC_RELEASE);
  }

  // Whether all is finite.
  bool close() {
    for (int n = 0; n < width_; n += kWidth) {
      if (!fresh_[n / kWidth]) continue;
      for (float* all : {dk_, dv_}) clear_rows<Math>(sums(all, n), kWidth, 0, depth_);
    }
    float scale[kKeys], one[kKeys];
    for (int key = 0; key < width_; ++key) scale[key] = p_.scale, one[key] = 1;
    const auto put = [&](float* from, const Rows& to, const float* factor) {
      Input* rows = row_of<Input>(to, unit_.b, unit_.h_kv, key_);
      return put_rows<Math::kLanes, Input>(sums(from, 0), p_.D, width_, factor, [&](int64_t key) {
        return key < keys_ ? rows + key * to.row : nullptr;
      });
    };
    const bool dk = put(dk_, p_.dk, scale), dv = put(dv_, p_.dv, one);
    return dk && dv;
  }

  const Problem& p_;
  const BackwardUnit& unit_;
  const QueryTiles tiles_;
  const int64_t key_;
  const int keys_, width_;   // width: keys, filled up to whole panels
  const int steps_, depth_;  // D in steps of a product, and filled up to whole units
  const int D_;              // D, filled up to whole vectors
  const float exponent_;     // of 2, for scores
  Element* k_columns_;       // [steps, width]
  Element* v_columns_;
  Element* k_stacked_;
  Columns<const Element> k_rows_{};
  float* dk_;  // [depth, width]
  float* dv_;
  float* dq_;       // [queries, D]
  float* p_tile_;   // [queries, panel]: s, then p
  float* ds_tile_;  // dp, then ds where products take pairs
  float* keep_;
  Element* ds_rows_;  // [queries, width], ds with pairs along the keys
  Element* q_scratch_;
  Element* do_scratch_;
  Element* q_stacked_;
  Element* do_stacked_;
  float* base_;                        // of a strip: gradient of the changed scores
  Columns<const float> derivative_{};  // of the strip's changed scores
  int strip_ = 0;                      // its first row
  bool fresh_[kKeys / kWidth];         // panels that no query has seen: their sums hold nothing yet
  bool finite_ = true;                 // all of k
  bool spoilt_ = false;                // what is hidden may not be finite
  bool again_ = false;  // for dk and dv alone, by products that leave zero weights out
  Programmed program_;
};

}  // namespace
}  // namespace nanoflex::cpu
