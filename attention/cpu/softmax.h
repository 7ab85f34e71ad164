// The online softmax (Milakov and Gimelshein, arXiv:1805.02867) of a panel of queries, which lie
// side by side as lanes, over blocks of keys: scores become weights 2^(c s - m).
#pragma once

#include <type_traits>

#include "attention/cpu/rounded_exp2.h"
#include "attention/cpu/tiles.h"

namespace nanoflex::cpu {
namespace {

/// What is known of each query's scores so far.
template <int kWidth>
struct Softmax {
  float shift[kWidth];  ///< m: in fp32 the largest score, else near c times it; -inf: none yet
  float sum[kWidth];    ///< of the weights
};

/// A block's rows, and for every kLanes queries those of them that some of these see. The others'
/// scores are not read, and their weights are zero.
template <int kGroups>
struct SeenRows {
  int rows;
  RowRange of[kGroups];
};

// The weights of the others, once the scores have been read.
template <typename Math, int kGroups>
void clear_unseen(Columns<typename Math::Element> weights, const SeenRows<kGroups>& seen) {
  const auto steps = [](int rows) { return (rows + Math::kPair - 1) / Math::kPair; };
  for (int n = 0; n < kGroups; ++n) {
    const auto [begin, end] = seen.of[n];
    clear_rows<Math>(panel_of(weights, n), Math::kLanes, 0, begin / Math::kPair);
    clear_rows<Math>(panel_of(weights, n), Math::kLanes, steps(end), steps(seen.rows));
  }
}

// The largest of rows of scores.
template <int kLanes>
typename Vectors<kLanes>::F highest_of(Columns<const float> s, int rows) {
  using V = Vectors<kLanes>;
  typename V::F highest[4];
  for (auto& h : highest) h = V::broadcast(-kInfinity);
  int row = 0;
  for (; row + 4 <= rows; row += 4) {
    for (int i = 0; i < 4; ++i) highest[i] = V::max(V::load(s.from(row + i).data), highest[i]);
  }
  for (; row < rows; ++row) highest[0] = V::max(V::load(s.from(row).data), highest[0]);
  return V::max(V::max(highest[0], highest[1]), V::max(highest[2], highest[3]));
}

/// Weights in fp32: exactly 1 at the largest score.
template <typename Math, int kWidth>
class ExactWeights {
  using V = Vectors<Math::kLanes>;
  using F = typename V::F;

 public:
  using Softmax = cpu::Softmax<kWidth>;
  using SeenRows = cpu::SeenRows<kWidth / Math::kLanes>;

  /// `exponent`: c, of 2.
  explicit ExactWeights(float exponent) : exponent_(exponent) {}

  F score(F shift) const { return shift; }

  /// s, weights: [rows, kWidth], may be the same. Where the shift grows, rescale(lane, by) is told
  /// what outputs and sums so far are to be multiplied with. Whether some shift grew.
  template <typename Rescale>
  bool take(Softmax& softmax, bool, Columns<const float> s, const SeenRows& seen,
            Columns<float> weights, const Rescale& rescale) const {
    bool grew = false;
    for (int n = 0; n < kWidth; n += Math::kLanes) {
      const auto [begin, end] = seen.of[n / Math::kLanes];
      const int rows = end - begin;
      if (rows == 0) continue;
      const F earlier = V::load(softmax.shift + n);
      const auto from = panel_of(s, n / Math::kLanes).from(begin);
      const auto to = panel_of(weights, n / Math::kLanes).from(begin);
      const F now = V::max(highest_of<Math::kLanes>(from, rows), earlier);
      const F shift = now == -kInfinity ? V::broadcast(0.0f) : now;
      const F by = V::exp2((earlier - shift) * exponent_);
      F sum{}, other{};
      int row = 0;
      for (; row + 2 <= rows; row += 2) {
        sum += weigh(from.from(row).data, to.from(row).data, shift);
        other += weigh(from.from(row + 1).data, to.from(row + 1).data, shift);
      }
      if (row < rows) sum += weigh(from.from(row).data, to.from(row).data, shift);
      V::store(softmax.shift + n, now);
      V::store(softmax.sum + n, V::load(softmax.sum + n) * by + (sum + other));
      if (!V::any(by != 1.0f)) continue;
      rescale(n, by);
      grew = true;
    }
    clear_unseen<Math>(weights, seen);
    return grew;
  }

 private:
  F weigh(const float* s, float* to, F shift) const {
    const F weight = V::exp2((V::load(s) - shift) * exponent_);
    V::store(to, weight);
    return weight;
  }

  const float exponent_;
};

/// Weights rounded to bf16, which may lie above 1 as well as below: they are as exact there, so the
/// shift seldom moves. What becomes of a lane does not depend on the others.
template <typename Math, int kWidth>
class RoundedWeights {
  using V = Vectors<16>;
  using F = V::F;
  using U = V::U;
  using I = V::I;
  using Powers = RoundedExp2;

 public:
  using Softmax = cpu::Softmax<kWidth>;
  using SeenRows = cpu::SeenRows<kWidth / 16>;

  explicit RoundedWeights(float exponent) : exponent_(exponent) {}

  F score(F shift) const { return shift / exponent_; }

  /// s: [rows, kWidth]; weights: pairs of rows [rows / 2, kWidth], may be s; what is seen begins
  /// with a pair. `exact`: the weights are summed before they are rounded. Whether some shift had
  /// to leave its place, which is 0 at first, or would have had to were it not `exact`.
  template <typename Rescale>
  bool take(Softmax& softmax, bool exact, Columns<const float> s, const SeenRows& seen,
            Columns<uint32_t> weights, const Rescale& rescale) const {
    I left{};
    for (int n = 0; n < kWidth; n += 16) {
      const auto [from, to, rows] = group(s, seen, weights, n / 16);
      if (rows == 0) continue;
      const F earlier = V::load(softmax.shift + n);
      const F highest = highest_of<16>(from, rows) * exponent_;
      const F place = highest * Powers::kSteps + zero(earlier);
      const U places = Powers::places(place, place) >> 16;
      const I leaves = fits(earlier, places) == 0;
      const I moves = exact ? (highest - earlier > kMost) : leaves;
      left |= leaves;
      const F now = moves ? highest : exact ? earlier : known(earlier);
      const F shift = known(now), by = V::template exp2<true>(earlier - shift);
      const F sum = exact ? weigh_exactly(from, rows, shift, to) : weigh(from, rows, shift, to).sum;
      V::store(softmax.shift + n, now);
      V::store(softmax.sum + n, V::load(softmax.sum + n) * by + sum);
      if (V::any(by != 1.0f)) rescale(n, by);
    }
    clear_unseen<Math>(weights, seen);
    return V::any(left);
  }

  /// The same without a look for the highest score first. False where the shift must move: then
  /// `weights` are spoilt, and all else is as it was.
  bool take_as_it_is(Softmax& softmax, Columns<const float> s, const SeenRows& seen,
                     Columns<uint32_t> weights) const {
    F sum[kWidth / 16] = {};
    for (int n = 0; n < kWidth; n += 16) {
      const auto [from, to, rows] = group(s, seen, weights, n / 16);
      if (rows == 0) continue;
      const F earlier = V::load(softmax.shift + n);
      const auto [total, highest] = weigh(from, rows, known(earlier), to);
      const U even = highest & 0xffff, odd = highest >> 16;
      if (V::any(fits(earlier, even > odd ? even : odd) == 0)) return false;
      sum[n / 16] = total;
    }
    for (int n = 0; n < kWidth; n += 16) {
      if (seen.of[n / 16].begin == seen.of[n / 16].end) continue;
      V::store(softmax.shift + n, known(V::load(softmax.shift + n)));
      V::store(softmax.sum + n, V::load(softmax.sum + n) + sum[n / 16]);
    }
    clear_unseen<Math>(weights, seen);
    return true;
  }

 private:
  static constexpr float kMost = 16;  // how far weights may leave 1 before the shift moves

  static F known(F shift) { return shift == -kInfinity ? F{} : shift; }
  static F zero(F shift) { return Powers::kZero - known(shift) * Powers::kSteps; }

  // Whether a block whose highest score has this place leaves the shift alone.
  static I fits(F shift, U place) {
    constexpr auto kHighest = static_cast<uint32_t>((127 + kMost) * Powers::kSteps);
    constexpr auto kLowest = static_cast<uint32_t>((127 - kMost) * Powers::kSteps);
    return (place <= kHighest) & ((shift != -kInfinity) | (place >= kLowest));
  }

  // What 16 queries see.
  struct Group {
    Columns<const float> scores;
    Columns<uint32_t> weights;
    int rows;
  };
  static Group group(Columns<const float> s, const SeenRows& seen, Columns<uint32_t> weights,
                     int n) {
    const auto [begin, end] = seen.of[n];
    return {panel_of(s, n).from(begin), panel_of(weights, n).from(begin / 2), end - begin};
  }

  struct Weighed {
    F sum;
    U highest;  // place of the even rows, of the odd ones
  };
  Weighed weigh(Columns<const float> s, int rows, F shift, Columns<uint32_t> weights) const {
    const F factor = V::broadcast(exponent_ * Powers::kSteps), zero = RoundedWeights::zero(shift);
    F sum{}, other{};
    U highest{};
    const auto put = [&](int row, F second) {
      const U places = Powers::places(V::load(s.from(row).data) * factor + zero, second);
      const U powers = Powers::powers(places);
      V::store(weights.from(row / 2).data, powers);
      highest = Powers::higher(highest, places);
      sum += Powers::lower(powers);
      other += Powers::upper(powers);
    };
    int row = 0;
    for (; row + 2 <= rows; row += 2) put(row, V::load(s.from(row + 1).data) * factor + zero);
    if (row < rows) put(row, F{});
    return {sum + other, highest};
  }

  // With the sum of what the weights were before they were rounded.
  F weigh_exactly(Columns<const float> s, int rows, F shift, Columns<uint32_t> weights) const {
    F sum{};
    for (int row = 0; row < rows; row += 2) {
      F weight[2] = {};
      for (int i = 0; i < 2 && row + i < rows; ++i) {
        weight[i] = V::template exp2<true>(V::load(s.from(row + i).data) * exponent_ - shift);
        sum += weight[i];
      }
      V::store(weights.from(row / 2).data, V::pair(weight[0], weight[1]));
    }
    return sum;
  }

  const float exponent_;
};

template <typename Math, int kWidth>
using Weights =
    std::conditional_t<Math::kPair == 2, RoundedWeights<Math, kWidth>, ExactWeights<Math, kWidth>>;

}  // namespace
}  // namespace nanoflex::cpu
