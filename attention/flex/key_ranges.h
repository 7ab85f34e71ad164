#pragma once

#include <ATen/Functions.h>

#include <cstdint>

#include "attention/flex/expression.h"

namespace nanoflex::flex {

/// A mask as the keys next to each other that each query sees, and what else it asks. A query sees
/// its own group under f(b, q) == f(b, kv), with any integer f of which no value comes again after
/// another one: document[b][q] == document[b][kv], or q / 64 == kv / 64.
struct RangesAndRest {
  at::Tensor ranges = {};  ///< [B or 1, S, 2] int32: position p's keys [begin, end); undefined: all
  Expression rest = {};    ///< undefined when that is nothing
};

/// Takes out of a mask those of the parts that `&` joins which are groups, for B batches and S
/// keys, among which every query has its position. Both results together are the mask. What reads
/// beyond a tensor is left to the rest.
RangesAndRest split_ranges(const Expression& mask, int64_t B, int64_t S);

}  // namespace nanoflex::flex
