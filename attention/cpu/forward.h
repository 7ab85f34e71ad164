// The forward tile kernel: Dao, "FlashAttention-2", arXiv:2307.08691, Algorithm 1, with queries as
// vector lanes. A panel is as many queries as a product has columns; for each block of keys
//   s = k q^T [keys, panel];  p = 2^(c (s - m));  o^T [D, panel] += v^T p
// so the softmax needs no sums across lanes, and k and v are read as they lie in memory where they
// are fp32; for products of bf16 a unit lays out each block once.
#pragma once

#include "attention/cpu/denominator.h"
#include "attention/cpu/dropout.h"
#include "attention/cpu/softmax.h"
#include "attention/cpu/tile_program.h"

namespace nanoflex::cpu {
namespace {

// Keys of a block at most, in units of every arithmetic. Tile registers and vectors do not work
// side by side, and changing between them takes time: there long blocks pay.
template <typename Math>
constexpr int kForwardKeys = Math::kUnit == 1 ? 96 : 256;
constexpr int kForwardPanels = 8;  // panels of a unit, which share each block of keys

// Queries side by side, the last repeated to fill the panel.
template <int kWidth>
struct Panel {
  Softmax<kWidth> softmax;
  int32_t key_begin[kWidth], key_end[kWidth];
  uint32_t row[kWidth], head[kWidth];  // t and b * H + h
  int64_t any_begin, any_end;          // keys that some query sees
  int64_t all_begin, all_end;          // keys that every query sees
  bool fresh;                          // has met no keys: its output holds nothing yet
  bool exact;                          // weights are not to be approximated
  bool steady;                         // the shift may well stay where it is
};

template <typename Math, typename Input>
class Forward {
  using V = Vectors<Math::kLanes>;
  using F = typename V::F;
  using Element = typename Math::Element;
  static constexpr int kWidth = Math::kLanes * Math::kVectors;
  static constexpr int kStep = Math::kUnit * Math::kPair;  // of keys in a product
  static constexpr bool kTiled = Math::kUnit > 1;
  static constexpr int kKeys = kForwardKeys<Math>;
  using Panel = cpu::Panel<kWidth>;

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
        weights_(scratch.take<Element>((kTiled ? kKeys / Math::kPair : kKeys + 1) * kWidth)),
        scores_(scratch.take<float>(kTiled ? kKeys * kWidth : 0)),
        key_scratch_(scratch.take<Element>(kKeys * steps_)),
        value_scratch_(scratch.take<Element>(kKeys * rounded_up(depth_, Math::kLanes))),
        panel_(scratch.take<Panel>(kForwardPanels)),
        program_(problem.program, {Vary::kQuery, kColumns, kKeys}, scratch) {}

  void run() {
    program_.start(unit_.b, place(0).h, p_.scale);
    int64_t begin = unit_.key_end, end = unit_.key_begin;
    for (int i = 0; i < panels_; ++i) {
      open(i);
      begin = smaller(begin, panel_[i].any_begin);
      end = larger(end, panel_[i].any_end);
    }
    for (int64_t key = begin / 2 * 2; key < end;) {
      const KeyRange run = next_run(key, end);
      for (key = run.begin; key < run.end; key += kKeys) {
        take_keys(key, smaller<int64_t>(kKeys, run.end - key));
      }
      key = run.end;
    }
    for (int i = 0; i < panels_; ++i) close(i);
  }

 private:
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
    panel.any_begin = unit_.key_end, panel.any_end = unit_.key_begin;
    panel.all_begin = unit_.key_begin, panel.all_end = unit_.key_end;
    panel.fresh = true;
    const Input* rows[kWidth];
    auto [h, t] = place(index * kWidth);
    for (int lane = 0; lane < kWidth; ++lane) {
      const KeyRange keys = visible_keys(p_, unit_.b, t);
      const int64_t begin = larger(keys.begin, unit_.key_begin);
      const int64_t end = larger(begin, smaller(keys.end, unit_.key_end));
      if (begin < end) {
        panel.any_begin = smaller(panel.any_begin, begin);
        panel.any_end = larger(panel.any_end, end);
      }
      panel.all_begin = larger(panel.all_begin, begin);
      panel.all_end = smaller(panel.all_end, end);
      panel.key_begin[lane] = static_cast<int32_t>(begin);
      panel.key_end[lane] = static_cast<int32_t>(end);
      panel.row[lane] = static_cast<uint32_t>(t);
      panel.head[lane] = static_cast<uint32_t>(unit_.b * p_.H + h);
      panel.softmax.shift[lane] = -kInfinity;
      panel.softmax.sum[lane] = 0;
      rows[lane] = row_of<const Input>(p_.q, unit_.b, h, t);
      if (index * kWidth + lane + 1 < unit_.columns) next(h, t);
    }
    constexpr int64_t kFew = 64;  // keys, too few for errors to average out
    panel.exact = p_.exact || panel.any_end - panel.any_begin <= kFew;
    panel.steady = !panel.exact && !program_.has_score();
    put_columns<Math, Input>([&](int64_t lane) { return rows[lane]; }, kWidth, p_.D,
                             queries(index));
    program_.put_lanes(index * kWidth, kWidth, [&](int64_t lane) {
      return static_cast<int64_t>(panel.row[lane]) + p_.S - p_.T;
    });
  }

  static int64_t part_keys(int64_t block_size) {
    constexpr int64_t kFewest = 64;
    return smaller<int64_t>(rounded_up(larger(block_size, kFewest), kStep), kKeys);
  }

  struct Place {
    int64_t h, t;
  };
  Place place(int64_t column) const {
    const int64_t flat = unit_.column + column;
    return {unit_.h_kv * (p_.H / p_.H_kv) + flat / p_.T, flat % p_.T};
  }

  void next(int64_t& h, int64_t& t) const {
    if (++t == p_.T) t = 0, ++h;
  }

  void take_keys(int64_t key, int64_t count) {
    const auto keys = left_rows<Math>(row_of<const Input>(p_.k, unit_.b, unit_.h_kv, key), p_.k.row,
                                      count, p_.D, key_scratch_);
    const auto values = left_columns<Math>(row_of<const Input>(p_.v, unit_.b, unit_.h_kv, key),
                                           p_.v.row, count, p_.D, value_scratch_);
    program_.put_rows(count, [&](int64_t row) { return key + row; });
    for (int i = 0; i < panels_; ++i) attend(i, key, count, keys, values);
  }

  // Keys first .. first + rows of those that are laid out, which some query of a panel sees.
  struct Part {
    int panel, first, rows;  // no rows: nothing
    int64_t key;             // the first
    bool cut;                // the program's mask must be asked
  };

  // A panel against the keys key .. key + count, which are laid out.
  void attend(int index, int64_t key, int64_t count, Operand<Element> keys,
              Operand<Element> values) {
    Panel& panel = panel_[index];
    int first = 0, rows = 0;  // keys whose weights wait for their values
    const auto weigh = [&] {
      if (rows == 0) return;
      multiply<Math>(depth_, kWidth, fill_up<Math>(weights(), kWidth, rows),
                     {values.data + first / Math::kPair * values.step, values.row, values.step},
                     weights(), output(index), !panel.fresh);
      panel.fresh = false;
      rows = 0;
    };
    for (int64_t at = 0, step; at < count; at += step) {
      step = smaller(part_keys_, count - at);
      const Part part = part_of(index, key, at, step);
      if (part.rows == 0) continue;
      if (part.first != first + rows) weigh();
      score(part, keys);
      // The shift seldom moves: it is cheaper to try without a look for the largest first, and at
      // times to score the part again.
      bool taken = false;
      if constexpr (Math::kPair == 2) {
        if (panel.steady) {
          taken = weigher_.take_as_it_is(panel.softmax, scores(), part.rows, weights(rows));
          if (!taken) score(part, keys);
        }
      }
      if (!taken) {
        weigh();
        bool moved = false;
        const auto rescale = [&](int n, F by) { moved = true, this->rescale(index, n, by); };
        weigher_.take(panel.softmax, panel.exact, scores(), part.rows, weights(), rescale);
        // A program may make scores that grow with every key.
        panel.steady = !panel.exact && !(moved && program_.has_score());
      }
      if (p_.dropout) {
        drop_columns<Math>(p_, panel.head, panel.row, part.key, part.rows, kWidth, weights(rows));
      }
      if (rows == 0) first = part.first;
      rows += part.rows;
    }
    weigh();
  }

  Columns<Element> queries(int index) {
    return columns_of<Math>(queries_ + index * kWidth * steps_, steps_, kWidth);
  }
  Columns<float> output(int index) {
    return columns_of<Math>(output_ + index * kWidth * depth_, depth_, kWidth);
  }
  // From the pair of a row on.
  Columns<Element> weights(int row = 0) {
    return columns_of<Math>(weights_, kKeys / Math::kPair, kWidth).from(row / Math::kPair);
  }
  // Scores may lie where their weights will.
  Columns<float> scores() {
    return columns_of<Math>(kTiled ? scores_ : reinterpret_cast<float*>(weights_), kKeys, kWidth);
  }

  void score(const Part& part, Operand<Element> keys) {
    multiply<Math>(static_cast<int>(rounded_up(part.rows, Math::kUnit)), kWidth, steps_,
                   {keys.data + part.first * keys.row, keys.row, keys.step}, queries(part.panel),
                   scores(), false);
    if (part.cut || program_.has_score()) change(part);
    hide(part);
  }

  void rescale(int index, int n, F by) {
    const auto columns = panel_of(output(index), n / Math::kLanes);
    for (int64_t d = 0; d < p_.D && !panel_[index].fresh; ++d) {
      float* at = columns.from(d).data;
      V::store(at, V::load(at) * by);
    }
  }

  Part part_of(int index, int64_t key, int64_t at, int64_t count) const {
    const Panel& panel = panel_[index];
    const int64_t begin = at + larger<int64_t>(panel.any_begin - key - at, 0) / kStep * kStep;
    const int64_t end = smaller(panel.any_end - key, at + count);
    if (begin >= end) return {};
    const int rows = static_cast<int>(end - begin);
    const Sight seen = sight_of(index, key + begin, rows);
    if (seen == Sight::kNone) return {};
    return {index, static_cast<int>(begin), rows, key + begin, seen == Sight::kSome};
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
      program_.run(scores().from(row), part.first + row, part.panel * kWidth,
                   smaller(kStrip, part.rows - row), part.cut);
    }
  }

  // -inf where the band forbids.
  void hide(const Part& part) {
    const Panel& queries = panel_[part.panel];
    for (int row = 0; row < part.rows; ++row) {
      const int64_t key = part.key + row;
      if (key >= queries.all_begin && key < queries.all_end) continue;
      const auto number = V::broadcast(static_cast<int32_t>(key));
      for (int n = 0; n < kWidth; n += Math::kLanes) {
        const auto begin = load_integers(queries.key_begin + n),
                   end = load_integers(queries.key_end + n);
        float* s = panel_of(scores(), n / Math::kLanes).from(row).data;
        V::store(s,
                 ((number >= begin) & (number < end)) != 0 ? V::load(s) : V::broadcast(-kInfinity));
      }
    }
  }

  static typename V::I load_integers(const int32_t* p) {
    return reinterpret_cast<typename V::I>(V::load(reinterpret_cast<const float*>(p)));
  }

  void close(int index) {
    const Panel& panel = panel_[index];
    float* all = output_ + index * kWidth * depth_;
    for (int64_t i = 0; panel.fresh && i < kWidth * depth_; ++i) all[i] = 0;
    const int lanes = static_cast<int>(smaller<int64_t>(kWidth, unit_.columns - index * kWidth));
    if (unit_.partial) {
      for (int lane = 0; lane < lanes; ++lane) {
        put_partial(index, lane);
      }
      return;
    }
    float factor[kWidth];
    double log2_sum[kWidth];
    for (int n = 0; n < kWidth; n += Math::kLanes) {
      const auto log2 = Elementary<Math::kLanes>::log2(V::load(panel.softmax.sum + n));
      __builtin_memcpy(log2_sum + n, &log2, sizeof(log2));
    }
    Input* rows[kWidth] = {};
    auto [h, t] = place(index * kWidth);
    for (int lane = 0; lane < lanes; ++lane, next(h, t)) {
      const float sum = panel.softmax.sum[lane];
      factor[lane] = sum > 0 || sum != sum ? 1 / sum : 0;
      rows[lane] = row_of<Input>(p_.o, unit_.b, h, t);
      put_denominator(p_, (unit_.b * p_.H + h) * p_.T + t,
                      weigher_.score(panel.softmax.shift[lane]), sum, log2_sum[lane]);
    }
    for (int lane = lanes; lane < kWidth; ++lane) factor[lane] = 0;
    put_rows<Math::kLanes, Input>(output(index), p_.D, kWidth, factor,
                                  [&](int64_t lane) { return rows[lane]; });
  }

  void put_partial(int index, int lane) {
    const Softmax<kWidth>& softmax = panel_[index].softmax;
    const auto from = panel_of(output(index), lane / Math::kLanes);
    const int64_t column = index * kWidth + lane;
    float* row = unit_.partial + column * p_.D;
    for (int64_t d = 0; d < p_.D; ++d) row[d] = from.from(d).data[lane % Math::kLanes];
    unit_.partial[unit_.columns * p_.D + column] = weigher_.score(softmax.shift[lane]);
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
  Element* weights_;  // [keys / kPair, kWidth]
  float* scores_;     // [keys, kWidth]; unless tiled they lie where the weights will
  Element* key_scratch_;
  Element* value_scratch_;
  Panel* panel_;
  TileProgram<Math, kWidth> program_;
};

}  // namespace
}  // namespace nanoflex::cpu
