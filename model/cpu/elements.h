// Elements of any dtype as vectors of floats, and back.
#pragma once

#include "attention/cpu/vectors.h"

namespace nanoflex::cpu {
namespace {

// The next kLanes elements as floats, or the `left` that are left, then zeros; and back.
template <int kLanes, typename Input>
typename Vectors<kLanes>::F take(const Input* from, int64_t left) {
  using V = Vectors<kLanes>;
  Input copy[kLanes];
  if (left < kLanes) {
    for (int i = 0; i < kLanes; ++i) copy[i] = i < left ? from[i] : Input{};
    from = copy;
  }
  if constexpr (sizeof(Input) == sizeof(float)) {
    return V::load(from);
  } else {
    return V::widen(V::load(from));
  }
}

template <int kLanes, typename Output>
void give(typename Vectors<kLanes>::F x, Output* to, int64_t left) {
  using V = Vectors<kLanes>;
  Output copy[kLanes];
  Output* const at = left < kLanes ? copy : to;
  if constexpr (sizeof(Output) == sizeof(float)) {
    V::store(at, x);
  } else {
    V::store(at, V::narrow(x));
  }
  for (int64_t i = 0; left < kLanes && i < left; ++i) to[i] = copy[i];
}

}  // namespace
}  // namespace nanoflex::cpu
