// Turns an arithmetic into its row of kernels.
#pragma once

#include "attention/cpu/backward.h"
#include "attention/cpu/forward.h"
#include "attention/cpu/kernels.h"

namespace nanoflex::cpu {
namespace {

template <typename Math, typename Input>
void run_forward(const Problem& problem, const ForwardUnit& unit, char* memory) {
  Scratch scratch(memory);
  [[maybe_unused]] const typename Math::Session session{};
  Forward<Math, Input>(problem, unit, scratch).run();
}

template <typename Math, typename Input>
void run_backward(const Problem& problem, const BackwardUnit& unit, char* memory) {
  Scratch scratch(memory);
  [[maybe_unused]] const typename Math::Session session{};
  Backward<Math, Input>(problem, unit, scratch).run();
}

// a b + c with one rounding where products round once.
template <int kLanes>
typename Vectors<kLanes>::F multiply_add(typename Vectors<kLanes>::F a,
                                         typename Vectors<kLanes>::F b,
                                         typename Vectors<kLanes>::F c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  for (int lane = 0; lane < kLanes; ++lane) c[lane] = __builtin_fmaf(a[lane], b[lane], c[lane]);
  return c;
#else
  return a * b + c;
#endif
}

// kLanes rows side by side, each summed in the order in which products sum dO v^T, so that rows
// that see one key alone cancel.
template <typename Math, typename Input>
void run_delta(const Problem& p, const float* d_logsumexp, int64_t b, int64_t h, int64_t row,
               int64_t rows, float* delta) {
  constexpr int kLanes = Math::kLanes;
  using V = Vectors<kLanes>;
  using F = typename V::F;
  alignas(64) typename Math::Element o[kLongestChain * kLanes], d_o[kLongestChain * kLanes];
  for (int64_t first = row; first < row + rows; first += kLanes) {
    const int64_t last = row + rows - 1;
    F sum{};
    for (int64_t d = 0; d < p.D; d += kLongestChain) {
      const int64_t count = smaller<int64_t>(p.D - d, kLongestChain);
      const auto take = [&](const Rows& from, typename Math::Element* to) {
        const auto at = [&](int64_t i) {
          return row_of<const Input>(from, b, h, smaller(first + i, last)) + d;
        };
        put_columns<Math, Input>(at, kLanes, count, {to, kLanes, 0});
      };
      take(p.o, o), take(p.d_o, d_o);
      F part{};
      for (int64_t step = 0; step * Math::kPair < count; ++step) {
        const auto x = V::load(d_o + step * kLanes), y = V::load(o + step * kLanes);
        if constexpr (Math::kPair == 1) {
          part = multiply_add<kLanes>(x, y, part);
        } else {
          const auto lower = [](auto pair) { return reinterpret_cast<F>(pair << 16); };
          const auto upper = [](auto pair) { return reinterpret_cast<F>(pair & 0xffff0000u); };
          part = multiply_add<kLanes>(lower(x), lower(y), part);
          part = multiply_add<kLanes>(upper(x), upper(y), part);
        }
      }
      sum += part;
    }
    for (int64_t i = 0; first + i <= last && i < kLanes; ++i) {
      const int64_t at = (b * p.H + h) * p.T + first + i;
      delta[at] = sum[i] - (d_logsumexp ? d_logsumexp[at] : 0);
    }
  }
}

template <typename Math, typename Input>
int64_t scratch_bytes(const Problem& problem) {
  Scratch forward(nullptr), backward(nullptr);
  const ForwardUnit forward_unit{};
  const BackwardUnit backward_unit{
      .b = 0, .h_kv = 0, .index = 0, .keys_per_unit = 1, .turn = nullptr};
  Forward<Math, Input>(problem, forward_unit, forward);
  Backward<Math, Input>(problem, backward_unit, backward);
  return larger(forward.used(), backward.used());
}

template <typename Math, typename Input>
Kernels kernels_of() {
  return {run_forward<Math, Input>,      run_backward<Math, Input>,
          run_delta<Math, Input>,        scratch_bytes<Math, Input>,
          Math::kLanes * Math::kVectors, Forward<Math, Input>::kColumns,
          Backward<Math, Input>::kKeys,  Backward<Math, Input>::kQueries};
}

}  // namespace
}  // namespace nanoflex::cpu
