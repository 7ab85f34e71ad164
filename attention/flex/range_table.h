#pragma once

#include <ATen/Functions.h>

#include <memory>
#include <span>

#include "attention/flex/interval.h"

namespace nanoflex::flex {

/// What an expression's part may be: `whole` for truth values and integers, else `real`.
struct ValueRange {
  Integers whole = {};
  Reals real = {};
  bool may_fail = false;
};

/// The least and greatest element in any rectangular part of a tensor.
class RangeTable {
 public:
  RangeTable() = default;
  virtual ~RangeTable() = default;
  RangeTable(const RangeTable&) = delete;
  RangeTable& operator=(const RangeTable&) = delete;

  /// `indices`: one range for each dimension. REQUIRES: they lie in the tensor.
  virtual ValueRange over(std::span<const Integers> indices) const = 0;
};

/// Of any dtype, strides and device; 0 to any number of dimensions. Takes about as many 32-bit
/// words as the tensor has elements, or fewer, beside a contiguous copy on the CPU (the tensor
/// itself if it is one already).
std::unique_ptr<RangeTable> make_range_table(const at::Tensor& tensor, Floats floats);

}  // namespace nanoflex::flex
