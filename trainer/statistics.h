#pragma once

#include <cstddef>
#include <optional>
#include <vector>

namespace nanoflex {

/// Some measurements of one thing.
struct Sample {
  size_t count = 0;
  double mean = 0;
  double deviation = 0;  ///< standard deviation, of count - 1 degrees of freedom; 0 for one value
};
Sample summarize(const std::vector<double>& values);

struct WelchTest {
  double t = 0, degrees = 0;
  double p = 1;  ///< chance of a difference at least as large if the true means were equal
};

/// Welch's two-sided t test (Welch 1947), for samples whose variances may differ. Empty where it
/// says nothing: a sample of fewer than two values, or no deviation in either.
std::optional<WelchTest> welch_test(const Sample& a, const Sample& b);

/// Below this p, a difference is called significant.
constexpr double kSignificant = 0.05;

}  // namespace nanoflex
