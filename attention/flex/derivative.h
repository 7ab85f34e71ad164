#pragma once

#include <vector>

#include "attention/flex/expression.h"

namespace nanoflex::flex {

/// d(score)/d(scaled score), an expression over the same values, simplified. Where min and max
/// meet, each side has half; comparisons, floor and integers have derivative 0; select takes the
/// derivative of the side that it takes, so what the other side makes never enters.
Expression derivative(const Expression& score);

/// How a score depends on one read of a captured float tensor.
struct CapturedRead {
  Expression read;        ///< the kLoad node: its tensor and its indices
  Expression derivative;  ///< d(score)/d(read), simplified
};

/// One for each different read of a float tensor that score depends on with a derivative other
/// than 0, in order of appearance. A tensor's gradient is the sum over its reads.
std::vector<CapturedRead> captured_reads(const Expression& score);

}  // namespace nanoflex::flex
