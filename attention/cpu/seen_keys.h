// Which keys the queries of a panel see by band and ranges: sight.h's visible_keys(), for kLanes
// queries at once.
#pragma once

#include "attention/cpu/softmax.h"

namespace nanoflex::cpu {
namespace {

template <typename Math>
class SeenKeys {
  using V = Vectors<Math::kLanes>;
  using I = typename V::I;
  static constexpr int kGroups = Math::kVectors, kWidth = Math::kLanes * kGroups;

 public:
  /// Of a unit's keys; `row`: the panel's queries.
  void look(const Problem& p, const ForwardUnit& unit, const uint32_t (&row)[kWidth]) {
    begin_ = unit.key_end, end_ = unit.key_begin;
    for (int n = 0; n < kGroups; ++n) {
      look(p, unit, n, load(row + n * Math::kLanes));
      begin_ = smaller(begin_, group_[n].begin);
      end_ = larger(end_, group_[n].end);
    }
  }

  /// From the first key that some query sees to the last.
  int64_t begin() const { return begin_; }
  int64_t end() const { return end_; }

  /// Of the keys key .. key + rows, those of each kLanes queries, from a whole pair on.
  SeenRows<kGroups> rows(int64_t key, int rows) const {
    SeenRows<kGroups> seen = {rows, {}};
    for (int n = 0; n < kGroups; ++n) {
      const auto within = [&](int64_t at) {
        return static_cast<int>(larger<int64_t>(smaller<int64_t>(at - key, rows), 0));
      };
      const RowRange range =
          RowRange{within(group_[n].begin), within(group_[n].end)}.from_unit(Math::kPair);
      if (!range.empty()) seen.of[n] = range;
    }
    return seen;
  }

  /// -inf for the scores [rows, kWidth] of keys from `key` on that a query does not see.
  void hide(int64_t key, const SeenRows<kGroups>& seen, Columns<float> scores) const {
    for (int n = 0; n < kGroups; ++n) {
      const I first = load(key_begin_ + n * Math::kLanes), last = load(key_end_ + n * Math::kLanes);
      const auto columns = panel_of(scores, n);
      const auto hide_rows = [&](int64_t from, int64_t to) {
        for (int64_t row = from; row < to; ++row) {
          const I at = word(key + row);
          float* s = columns.from(row).data;
          V::store(s, ((at >= first) & (at < last)) != 0 ? V::load(s) : V::broadcast(-kInfinity));
        }
      };
      const RowRange rows = seen.of[n];
      const int64_t all = larger<int64_t>(group_[n].all_begin - key, rows.begin);
      hide_rows(rows.begin, smaller<int64_t>(all, rows.end));
      hide_rows(larger<int64_t>(all, group_[n].all_end - key), rows.end);
    }
  }

 private:
  // Keys that some query of a group sees, and those that every one does.
  struct Group {
    int64_t begin, end, all_begin, all_end;
  };

  void look(const Problem& p, const ForwardUnit& unit, int n, I row) {
    const auto lower = [](I a, I b) { return a < b ? a : b; };
    const auto upper = [](I a, I b) { return a > b ? a : b; };
    const I position = row + word(p.S - p.T);
    I begin = upper(position - word(p.left), word(unit.key_begin));
    I end = lower(position + word(p.right + 1), word(unit.key_end));
    if (p.ranges.keys) {
      I first{}, last{};
      for (int lane = 0; lane < Math::kLanes; ++lane) {
        const int32_t* range = p.ranges.keys + unit.b * p.ranges.batch + 2 * position[lane];
        first[lane] = range[0], last[lane] = range[1];
      }
      begin = upper(begin, first), end = lower(end, last);
    }
    end = upper(begin, end);
    V::store(reinterpret_cast<uint32_t*>(key_begin_ + n * Math::kLanes),
             reinterpret_cast<typename V::U>(begin));
    V::store(reinterpret_cast<uint32_t*>(key_end_ + n * Math::kLanes),
             reinterpret_cast<typename V::U>(end));
    const I sees = begin < end;
    const auto lowest = [](I x) { return int64_t{V::lowest(x)}; };
    group_[n] = {.begin = lowest(sees != 0 ? begin : word(unit.key_end)),
                 .end = -lowest(sees != 0 ? -end : -word(unit.key_begin)),
                 .all_begin = -lowest(-begin),
                 .all_end = lowest(end)};
  }

  static I word(int64_t x) { return V::broadcast(static_cast<int32_t>(x)); }
  template <typename Integer>
  static I load(const Integer* p) {
    return reinterpret_cast<I>(V::load(reinterpret_cast<const uint32_t*>(p)));
  }

  int32_t key_begin_[kWidth], key_end_[kWidth];  // of each query
  int64_t begin_, end_;
  Group group_[kGroups];
};

}  // namespace
}  // namespace nanoflex::cpu
