#include "trainer/statistics.h"

#include <cmath>

namespace nanoflex {
namespace {

// The continued fraction of the incomplete beta function (Abramowitz and Stegun 26.5.8), by Lentz's
// method; converges fast for x < (a + 1) / (a + b + 2).
double beta_fraction(double a, double b, double x) {
  constexpr int kTerms = 1000;
  constexpr double kTiny = 1e-300;
  const auto not_zero = [](double value) { return std::abs(value) < kTiny ? kTiny : value; };
  double c = 1, d = 1 / not_zero(1 - (a + b) * x / (a + 1)), result = d;
  for (int m = 1; m <= kTerms; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    double factor = 1;
    for (const double numerator : {even, odd}) {
      d = 1 / not_zero(1 + numerator * d);
      c = not_zero(1 + numerator / c);
      factor = c * d;
      result *= factor;
    }
    if (std::abs(factor - 1) < 1e-15) break;
  }
  return result;
}

// The regularized incomplete beta function I_x(a, b).
double incomplete_beta(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double front = std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) +
                                a * std::log(x) + b * std::log1p(-x));
  if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
  return 1 - front * beta_fraction(b, a, 1 - x) / b;
}

}  // namespace

Sample summarize(const std::vector<double>& values) {
  Sample sample{.count = values.size()};
  if (values.empty()) return sample;
  // From the first, so that equal values have that very value as their mean and no deviation.
  const double first = values.front();
  for (const double value : values) sample.mean += value - first;
  sample.mean = first + sample.mean / static_cast<double>(values.size());
  double squares = 0;
  for (const double value : values) squares += (value - sample.mean) * (value - sample.mean);
  if (values.size() > 1) {
    sample.deviation = std::sqrt(squares / static_cast<double>(values.size() - 1));
  }
  return sample;
}

std::optional<WelchTest> welch_test(const Sample& a, const Sample& b) {
  if (a.count < 2 || b.count < 2) return std::nullopt;
  const auto error = [](const Sample& s) {
    return s.deviation * s.deviation / static_cast<double>(s.count);
  };
  const double of_a = error(a), of_b = error(b), both = of_a + of_b;
  if (!(both > 0)) return std::nullopt;
  WelchTest test;
  test.t = (a.mean - b.mean) / std::sqrt(both);
  test.degrees = both * both /
                 (of_a * of_a / static_cast<double>(a.count - 1) +
                  of_b * of_b / static_cast<double>(b.count - 1));
  // Student's distribution (Abramowitz and Stegun 26.7.1).
  test.p = incomplete_beta(test.degrees / 2, 0.5, test.degrees / (test.degrees + test.t * test.t));
  return test;
}

}  // namespace nanoflex
