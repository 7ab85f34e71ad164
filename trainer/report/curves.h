// What a page's charts show of a run.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "trainer/report/record.h"

namespace nanoflex {

/// Up to this many steps every one is drawn.
constexpr size_t kMostPoints = 2000;

/// The metrics of one run, column by column, for the page's script: {label, steps, curves}. A curve
/// is {bucket, from, step, tokens, seconds, columns {name: values}, low, high}: with more than
/// kMostPoints steps, a point stands for `bucket` steps, `from` .. `step`: their mean, and in `low`
/// and `high` their extremes, so that no spike is lost. Validations, which are few, are a curve of
/// their own. What a line lacks, or has as null, is null.
nlohmann::json curves_of(const std::string& label, const std::vector<MetricsLine>& metrics);

}  // namespace nanoflex
