#pragma once

#include <cstdint>
#include <optional>

#include "attention/flex/expression.h"

namespace nanoflex::flex {

/// A band of keys around each query: q - kv <= left and kv - q <= right; empty bounds are none.
/// `causal` is right = 0, FlashAttention's sliding window (left, right) both.
struct Band {
  std::optional<int64_t> left = {}, right = {};
};

/// The band that a mask is, when it is one: comparisons between q, kv and integer constants, their
/// sums and differences, joined by `&`; or `full`. Else nothing.
std::optional<Band> band_of(const Expression& mask);

/// A mask as a band and what else it asks; `rest` is undefined when that is nothing.
struct BandAndRest {
  Band band = {};
  Expression rest = {};
};

/// Takes out of a mask those of the parts that `&` joins which are bands. Both results together are
/// the mask.
BandAndRest split_band(const Expression& mask);

}  // namespace nanoflex::flex
