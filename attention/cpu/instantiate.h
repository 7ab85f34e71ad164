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
inline float multiply_add(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

// Summed in the order in which products sum dO v^T, so that rows that see one key alone cancel.
// Eight rows at once hide the latency of one chain.
template <typename Input>
void run_delta(const Problem& p, const float* d_logsumexp, int64_t b, int64_t h, int64_t row,
               int64_t rows, float* delta) {
  constexpr int64_t kRows = 8;
  for (int64_t first = row; first < row + rows; first += kRows) {
    const int64_t count = smaller(kRows, row + rows - first);
    float sum[kRows] = {};
    const Input *o[kRows], *d_o[kRows];
    for (int64_t i = 0; i < kRows; ++i) {
      const int64_t at = first + smaller(i, count - 1);
      o[i] = row_of<const Input>(p.o, b, h, at);
      d_o[i] = row_of<const Input>(p.d_o, b, h, at);
    }
    for (int64_t begin = 0; begin < p.D; begin += kLongestChain) {
      float part[kRows] = {};
      for (int64_t d = begin; d < smaller(p.D, begin + kLongestChain); ++d) {
        for (int64_t i = 0; i < kRows; ++i) {
          part[i] = multiply_add(to_float(d_o[i][d]), to_float(o[i][d]), part[i]);
        }
      }
      for (int64_t i = 0; i < kRows; ++i) sum[i] += part[i];
    }
    for (int64_t i = 0; i < count; ++i) {
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
  return {
      run_forward<Math, Input>,     run_backward<Math, Input>,      run_delta<Input>,
      scratch_bytes<Math, Input>,   Math::kLanes * Math::kVectors,  Forward<Math, Input>::kColumns,
      Backward<Math, Input>::kKeys, Backward<Math, Input>::kQueries};
}

}  // namespace
}  // namespace nanoflex::cpu
