// The forward tile kernel: Dao, "FlashAttention-2", arXiv:2307.08691, Algorithm 1, with queries as
// vector lanes. A panel is as many queries as a product has columns; for each block of keys
//   s = k q^T [keys, panel];  p = 2^(c (s - m));  o^T [D, panel] += v^T p
// so the softmax needs no sums across lanes, and k and v are read as they lie in memory where they
// are fp32; for products of bf16 a unit lays out each block once.
#pragma once

#include "attention/cpu/denominator.h"
#include "attention/cpu/dropout.h"
#include "attention/cpu/seen_keys.h"
#include "attention/cpu/tile_program.h"
#include "attention/cpu/weighed_product.h"

namespace nanoflex::cpu {
namespace {

// Keys at most whose scores are held, in units of every arithmetic. Tile registers and vectors do
// not work side by side, and changing between them takes time: there long blocks pay.
template <typename Math>
constexpr int kForwardKeys = Math::kUnit == 1 ? 96 : 320;
// Keys that are laid out at once, for all panels of a unit. What a window shows of them to a panel
// is then seldom in two pieces.
template <typename Math>
constexpr int kForwardLaidKeys = Math::kUnit == 1 ? 96 : 768;
constexpr int kForwardPanels = 8;  // panels of a unit

// Queries side by side, in groups of kLanes, the last repeated to fill the panel.
template <typename Math>
struct Panel {
  static constexpr int kWidth = Math::kLanes * Math::kVectors;
  Softmax<kWidth> softmax;
  uint32_t row[kWidth], head[kWidth];  // t and b * H + h
  SeenKeys<Math> keys;
  bool fresh;   // has met no keys: its output holds nothing yet
  bool exact;   // weights are not to be approximated
  bool steady;  // the shift may well stay where it is
};

template <typename Math, typename Input>
class Forward {
  using V = Vectors<Math::kLanes>;
  using F = typename V::F;
  using Element = typename Math::Element;
  static constexpr int kWidth = Math::kLanes * Math::kVectors;
  static constexpr int kStep = Math::kUnit * Math::kPair;  // of keys in a product
  static constexpr bool kTiled = Math::kUnit > 1;
  static constexpr int kKeys = kForwardKeys<Math>, kLaidKeys = kForwardLaidKeys<Math>;
  using Panel = cpu::Panel<Math>;

 public:
  static constexpr int kColumns = kWidth * kForwardPanels;

  Forward(const Problem& problem, const ForwardUnit& unit, Scratch& scratch)
      : p_(problem),
        unit_(unit),
        steps_(static_cast<int>(steps_of<Math>(problem.D))),
        depth_(static_cast<int>(rounded_up(problem.D, Math::kUnit))),
        panels_(static_cast<int>((unit.columns + kWidth - 1) / kWidth)),
        part_keys_(kTiled && p_.blocks.kinds ? part_keys(p_.blocks.size) : kKeys),
        weigher_(p_.softmax_scale * kLog2E),
        queries_(scratch.take<Element>(kForwardPanels * kWidth * steps_)),
        output_(scratch.take<float>(kForwardPanels * kWidth * depth_)),
        scores_(scratch.take<float>(kKeys * kWidth)),
        key_scratch_(scratch.take<Element>(kLaidKeys * steps_)),
        value_scratch_(scratch.take<Element>(laid_values())),
        panel_(scratch.take<Panel>(kForwardPanels)),
        program_(problem.program, {Vary::kQuery, kColumns, kLaidKeys}, scratch) {}

  void run() {
    program_.start(unit_.b, place(0).h, p_.scale);
    opens_steady_ = !program_.has_score();
    do {
      attend();
    } while (!finite_ && !std::exchange(weighed_, true));
  }

 private:
  void attend() {
    int64_t begin = unit_.key_end, end = unit_.key_begin;
    for (int i = 0; i < panels_; ++i) {
      open(i);
      begin = smaller(begin, panel_[i].keys.begin());
      end = larger(end, panel_[i].keys.end());
    }
    for (int64_t key = begin / 2 * 2; key < end;) {
      const KeyRange run = next_run(key, end);
      for (key = run.begin; key < run.end; key += kLaidKeys) {
        take_keys(key, smaller<int64_t>(kLaidKeys, run.end - key));
      }
      key = run.end;
    }
    for (int i = 0; i < panels_; ++i) close(i);
  }

  // From `key` on, the first keys that lie in blocks next to each other which are not empty for all
  // queries of the unit.
  KeyRange next_run(int64_t key, int64_t end) const {
    if (!p_.blocks.kinds) return {key, end};
    const auto [h, row] = place(0);
    const auto empty = [&, h = h, row = row](int64_t at) {
      return sight(p_.blocks, {unit_.b, h, row, unit_.columns, at, 1}) == Sight::kNone;
    };
    const auto next_block = [&](int64_t at) { return (at / p_.blocks.size + 1) * p_.blocks.size; };
    while (key < end && empty(key)) key = next_block(key);
    int64_t stop = key;
    while (stop < end && !empty(stop)) stop = next_block(stop);
    return {smaller(key, end), smaller(stop, end)};
  }

  // Gathers the panel's queries as columns and says which keys they see.
  void open(int index) {
    Panel& panel = panel_[index];
    panel.fresh = true;
    const Input* rows[kWidth];
    each_row<const Input>(p_.q, index, kWidth,
                          [&](int lane, int64_t h, int64_t t, const Input* row) {
                            panel.row[lane] = static_cast<uint32_t>(t);
                            panel.head[lane] = static_cast<uint32_t>(unit_.b * p_.H + h);
                            rows[lane] = row;
                          });
    panel.keys.look(p_, unit_, panel.row);
    for (int n = 0; n < kWidth; n += Math::kLanes) {
      V::store(panel.softmax.shift + n, V::broadcast(-kInfinity));
      V::store(panel.softmax.sum + n, F{});
    }
    constexpr int64_t kFew = 64;  // keys, too few for errors to average out
    panel.exact = p_.exact || panel.keys.end() - panel.keys.begin() <= kFew;
    panel.steady = !panel.exact;
    put_columns<Math, Input>([&](int64_t lane) { return rows[lane]; }, kWidth, p_.D,
                             queries(index));
    program_.put_lanes(index * kWidth, kWidth, [&](int64_t lane) {
      return static_cast<int64_t>(panel.row[lane]) + p_.S - p_.T;
    });
  }

  int64_t laid_values() const { return kLaidKeys * rounded_up(depth_, Math::kLanes); }

  static int64_t part_keys(int64_t block_size) {
    constexpr int64_t kFewest = 64, kMost = 256;
    return smaller(rounded_up(larger(block_size, kFewest), kStep), kMost);
  }

  struct Place {
    int64_t h, t;
  };
  Place place(int64_t column) const {
    const int64_t flat = unit_.column + column;
    return {unit_.h_kv * (p_.H / p_.H_kv) + flat / p_.T, flat % p_.T};
  }

  // visit(lane, h, t, the row of `all`) for `lanes` queries of a panel; beyond the unit's last one
  // comes that one again.
  template <typename Element, typename Visit>
  void each_row(const Rows& all, int index, int lanes, const Visit& visit) const {
    auto [h, t] = place(index * kWidth);
    Element* row = row_of<Element>(all, unit_.b, h, t);
    const int last = static_cast<int>(unit_.columns) - index * kWidth - 1;
    for (int lane = 0; lane < lanes; ++lane) {
      visit(lane, h, t, row);
      if (lane >= last) continue;
      row += all.row;
      if (++t == p_.T) t = 0, row = row_of<Element>(all, unit_.b, ++h, t);
    }
  }

  void take_keys(int64_t key, int64_t count) {
    const auto keys = left_rows<Math>(row_of<const Input>(p_.k, unit_.b, unit_.h_kv, key), p_.k.row,
                                      count, p_.D, key_scratch_);
    const auto values = lay_values(key, count);
    program_.put_rows(count, [&](int64_t row) { return key + row; });
    for (int i = 0; i < panels_; ++i) attend(i, key, count, keys, values);
  }

  Operand<Element> lay_values(int64_t key, int64_t count) {
    laid_ = {key, key + count};
    return left_columns<Math>(row_of<const Input>(p_.v, unit_.b, unit_.h_kv, key), p_.v.row, count,
                              p_.D, value_scratch_);
  }

  // Keys first .. first + rows of those that are laid out, which some query of a panel sees.
  struct Part {
    int panel, first, rows;  // no rows: nothing
    int64_t key;             // the first
    bool cut;                // the program's mask must be asked
    SeenRows<Math::kVectors> seen;
    int slot = 0;  // where its scores lie
  };

  // Weights that wait for the product with their values, of keys next to each other.
  struct Waiting {
    int first = 0, slot = 0, rows = 0;
    RowRange seen[kProducts<Math>] = {};  // of the slots, by columns: not all zero

    void add(const Part& part) {
      if (rows == 0) *this = {.first = part.first, .slot = part.slot};
      rows += part.rows;
      for (int n = 0; n < Math::kVectors; ++n) {
        const RowRange range = part.seen.of[n].from_unit(kStep);
        if (range.empty()) continue;
        RowRange& all = seen[n * Math::kLanes / kProductColumns<Math>];
        all = joined(all, {part.slot + range.begin, part.slot + range.end});
      }
    }
  };

  // A panel against the keys key .. key + count, which are laid out.
  void attend(int index, int64_t key, int64_t count, Operand<Element> keys,
              Operand<Element> values) {
    const Panel& panel = panel_[index];
    const int64_t grid = p_.blocks.kinds ? part_keys_ : kStep;
    const int64_t end = smaller(panel.keys.end() - key, count);
    Waiting waiting;
    for (int64_t at = larger<int64_t>(panel.keys.begin() - key, 0) / grid * grid; at < end;
         at += part_keys_) {
      Part part = part_of(index, key, at, smaller(at + part_keys_, end));
      if (part.rows == 0) continue;
      part.slot = waiting.slot + waiting.rows;
      if (part.first != waiting.first + waiting.rows || part.slot + part.rows > kKeys) {
        multiply_values(index, values, waiting);
        part.slot = 0;
      }
      score(part, keys);
      weigh(part, keys, values, waiting);
      if (p_.dropout) {
        drop_columns<Math>(p_, panel.head, panel.row, part.key, part.rows, kWidth,
                           weights(part.slot));
      }
      waiting.add(part);
    }
    multiply_values(index, values, waiting);
  }

  // A part's weights from its scores. The shift seldom moves: it is cheaper to try without a look
  // for the largest first, and at times to score the part again.
  void weigh(const Part& part, Operand<Element> keys, Operand<Element> values, Waiting& waiting) {
    Panel& panel = panel_[part.panel];
    const auto scores = this->scores(part.slot);
    const auto weights = this->weights(part.slot);
    if constexpr (Math::kPair == 2) {
      if (panel.steady && (opens_steady_ || !panel.fresh)) {
        if (weigher_.take_as_it_is(panel.softmax, scores, part.seen, weights)) return;
        score(part, keys);
      }
    }
    multiply_values(part.panel, values, waiting);
    const bool moved = weigher_.take(panel.softmax, panel.exact, scores, part.seen, weights,
                                     [&](int n, F by) { rescale(part.panel, n, by); });
    // A program may make scores that grow with every key, or are far from 0 in every panel.
    panel.steady = !panel.exact && !(moved && program_.has_score());
    if (panel.fresh && program_.has_score()) opens_steady_ = !moved;
  }

  void multiply_values(int index, Operand<Element> values, Waiting& waiting) {
    if (waiting.rows == 0) return;
    const bool fresh = panel_[index].fresh;
    fill_up<Math>(weights(waiting.slot), kWidth, waiting.rows);
    by_columns<Math>(waiting.seen, [&](int n, int width, RowRange rows) {
      if (rows.empty()) return fresh ? clear(index, n, width) : void();
      const int step = (waiting.first - waiting.slot + rows.begin) / Math::kPair;
      const int steps = static_cast<int>(steps_of<Math>(rows.end - rows.begin));
      const Operand<Element> left = {values.data + step * values.step, values.row, values.step};
      const auto right = panel_of(weights(rows.begin), n);
      const auto out = panel_of(output(index), n);
      if (weighed_) {
        multiply_weighed<Math, Weighs::kRight>(
            depth_, width, steps, left, right, out, !fresh, value_scratch_, laid_values(),
            [&] { lay_values(laid_.begin, laid_.end - laid_.begin); });
      } else {
        multiply<Math>(depth_, width, steps, left, right, out, !fresh);
      }
    });
    panel_[index].fresh = false;
    waiting = {};
  }

  Columns<Element> queries(int index) {
    return columns_of<Math>(queries_ + index * kWidth * steps_, steps_, kWidth);
  }
  Columns<float> output(int index) {
    return columns_of<Math>(output_ + index * kWidth * depth_, depth_, kWidth);
  }
  // From a row on. Weights lie where scores did that have been read: pairs, of the first half.
  Columns<float> scores(int row) { return columns_of<Math>(scores_, kKeys, kWidth).from(row); }
  Columns<Element> weights(int row) {
    return columns_of<Math>(reinterpret_cast<Element*>(scores_), kKeys, kWidth)
        .from(row / Math::kPair);
  }

  void score(const Part& part, Operand<Element> keys) {
    RowRange seen[kProducts<Math>] = {};
    for (int n = 0; n < Math::kVectors; ++n) {
      RowRange& all = seen[n * Math::kLanes / kProductColumns<Math>];
      all = joined(all, part.seen.of[n].from_unit(Math::kUnit));
    }
    by_columns<Math>(seen, [&](int n, int width, RowRange rows) {
      if (rows.empty()) return;
      multiply<Math>(
          static_cast<int>(rounded_up(rows.end - rows.begin, Math::kUnit)), width, steps_,
          {keys.data + (part.first + rows.begin) * keys.row, keys.row, keys.step},
          panel_of(queries(part.panel), n), panel_of(scores(part.slot + rows.begin), n), false);
    });
    if (part.cut || program_.has_score()) change(part);
    panel_[part.panel].keys.hide(part.key, part.seen, scores(part.slot));
  }

  // No output yet, for `width` columns from a group on.
  void clear(int index, int group, int width) {
    clear_rows<Math>(panel_of(output(index), group), width, 0, depth_);
  }

  void rescale(int index, int n, F by) {
    const auto columns = panel_of(output(index), n / Math::kLanes);
    for (int64_t d = 0; d < p_.D && !panel_[index].fresh; ++d) {
      float* at = columns.from(d).data;
      V::store(at, V::load(at) * by);
    }
  }

  Part part_of(int index, int64_t key, int64_t at, int64_t end) const {
    const Panel& panel = panel_[index];
    const int64_t begin = at + larger<int64_t>(panel.keys.begin() - key - at, 0) / kStep * kStep;
    const int rows = static_cast<int>(end - begin);
    const Sight seen = sight_of(index, key + begin, rows);
    if (seen == Sight::kNone) return {};
    return {.panel = index,
            .first = static_cast<int>(begin),
            .rows = rows,
            .key = key + begin,
            .cut = seen == Sight::kSome,
            .seen = panel.keys.rows(key + begin, rows)};
  }

  // What the blocks leave a panel of the keys; with blocks, a unit lies in one head.
  Sight sight_of(int index, int64_t key, int rows) const {
    if (!p_.blocks.kinds) return Sight::kAll;
    const auto [h, row] = place(index * kWidth);
    const int64_t queries = smaller<int64_t>(kWidth, unit_.columns - index * kWidth);
    return sight(p_.blocks, {unit_.b, h, row, queries, key, rows});
  }

  // The program's scores in place of the products, and -inf where its mask forbids.
  void change(const Part& part) {
    constexpr int kStrip = TileProgram<Math, kWidth>::kStrip;
    for (int row = 0; row < part.rows; row += kStrip) {
      program_.run(scores(part.slot + row), part.first + row, part.panel * kWidth,
                   smaller(kStrip, part.rows - row), part.cut);
    }
  }

  void close(int index) {
    const Panel& panel = panel_[index];
    if (panel.fresh) clear(index, 0, kWidth);
    const int lanes = static_cast<int>(smaller<int64_t>(kWidth, unit_.columns - index * kWidth));
    if (unit_.partial) {
      for (int lane = 0; lane < lanes; ++lane) {
        put_partial(index, lane);
      }
      return;
    }
    const int64_t first = index * kWidth;
    float factor[kWidth];
    for (int n = 0; n < kWidth; n += Math::kLanes) {
      const F sum = V::load(panel.softmax.sum + n);
      V::store(factor + n, ((sum > 0.0f) | (sum != sum)) != 0 ? 1.0f / sum : F{});
      // The heads of a unit lie end to end.
      put_denominators<Math::kLanes>(
          p_, (unit_.b * p_.H + unit_.h_kv * (p_.H / p_.H_kv)) * p_.T + unit_.column + first + n,
          lanes - n, weigher_.score(V::load(panel.softmax.shift + n)), sum);
    }
    Input* rows[kWidth] = {};
    each_row<Input>(p_.o, index, lanes,
                    [&](int lane, int64_t, int64_t, Input* row) { rows[lane] = row; });
    finite_ &= put_rows<Math::kLanes, Input>(output(index), p_.D, kWidth, factor,
                                             [&](int64_t lane) { return rows[lane]; });
  }

  void put_partial(int index, int lane) {
    const Softmax<kWidth>& softmax = panel_[index].softmax;
    const auto from = panel_of(output(index), lane / Math::kLanes);
    const int64_t column = index * kWidth + lane;
    float* row = unit_.partial + column * p_.D;
    for (int64_t d = 0; d < p_.D; ++d) {
      row[d] = from.from(d).data[lane % Math::kLanes];
      finite_ &= row[d] * 0.0f == 0.0f;
    }
    unit_.partial[unit_.columns * p_.D + column] =
        weigher_.score(V::broadcast(softmax.shift[lane]))[0];
    unit_.partial[unit_.columns * (p_.D + 1) + column] = softmax.sum[lane];
  }

  const Problem& p_;
  const ForwardUnit& unit_;
  const int steps_, depth_;  // D in steps of a product, and filled up to whole units
  const int panels_;
  const int64_t part_keys_;  // that the mask's blocks are asked about at once
  const Weights<Math, kWidth> weigher_;
  Element* queries_;  // [panel, steps, kWidth]
  float* output_;     // [panel, depth, kWidth]
  float* scores_;     // [keys, kWidth], then their weights
  Element* key_scratch_;
  Element* value_scratch_;
  Panel* panel_;
  KeyRange laid_ = {0, 0};    // whose values lie there
  bool opens_steady_ = true;  // the shift may well stay at 0 when a panel's first scores come
  bool finite_ = true;        // all outputs
  bool weighed_ = false;      // by products that leave zero weights out
  TileProgram<Math, kWidth> program_;
};

}  // namespace
}  // namespace nanoflex::cpu
