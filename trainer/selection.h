// Which runs a comparison shows, in which order, and what makes it fail.
#pragma once

#include <string>
#include <vector>

#include "trainer/comparison.h"

namespace nanoflex {

/// The runs for which every condition holds: "KEY=VALUE" or "KEY!=VALUE", where KEY is a config key
/// (n_layer or model.n_layer), status or id. Throws std::invalid_argument for a condition of
/// another form, a key that no run has, and where no run is left.
std::vector<RunSummary> where(std::vector<RunSummary> runs,
                              const std::vector<std::string>& conditions);

/// The best first by a number of kMetrics: most tokens per second, least memory, least loss. Runs
/// without it come last. Throws std::invalid_argument, naming the numbers there are.
std::vector<RunSummary> sorted_by(std::vector<RunSummary> runs, const std::string& metric);

/// A bound on a number's ratio to the first run, such as "tokens_per_second < 0.97".
struct FailureRule {
  size_t metric = 0;       ///< in kMetrics
  std::string comparison;  ///< < <= > or >=
  double bound = 0;
  std::string text;  ///< as it was given
};
/// Throws std::invalid_argument for a text of another form.
FailureRule parse_failure_rule(const std::string& text);

/// A line for each run but the first for which the rule holds, or whose ratio is unknown.
std::vector<std::string> failures(const Comparison& comparison, const FailureRule& rule);

}  // namespace nanoflex
