#include "trainer/statistics.h"

#include <gtest/gtest.h>

#include <cmath>

namespace nanoflex {
namespace {

// Expected values by the definition in 30 digits, with mpmath's betainc.
void expect_test(const std::vector<double>& a, const std::vector<double>& b, double t, double p) {
  const auto test = welch_test(summarize(a), summarize(b));
  ASSERT_TRUE(test);
  EXPECT_TRUE(std::abs(test->t - t) <= 1e-9 * std::abs(t)) << test->t;
  EXPECT_TRUE(std::abs(test->p - p) <= 1e-9 * p) << test->p;
}

TEST(Statistics, WelchTestAgreesWithAnotherImplementation) {
  expect_test({1, 2, 3}, {2, 4, 6, 8}, -2.12132034355964, 0.0999128643118009);
  expect_test({27.5, 21, 19, 23.6, 17}, {27.1, 22, 20.8, 23.4, 23.4, 23.5, 25.8, 22},
              -0.953052598609926, 0.381942387081121);
  expect_test({10, 10.01, 10.02}, {9, 9.5}, 3.03918965745595, 0.202152990915358);
  std::vector<double> many, others;
  for (int i = 0; i < 20; ++i) many.insert(many.end(), {0.1, 0.2, 0.4, 0.1, 0.9});
  for (int i = 0; i < 15; ++i) others.insert(others.end(), {0.5, 0.3, 0.2, 0.7});
  expect_test(many, others, -2.16731590910898, 0.0317152695048977);
}

TEST(Statistics, EqualMeansAreNoDifference) {
  const auto test = welch_test(summarize({1, 3}), summarize({0, 2, 4}));
  ASSERT_TRUE(test);
  EXPECT_EQ(test->t, 0);
  EXPECT_TRUE(std::abs(test->p - 1) <= 1e-12);
}

// Divided first, ten times this number is not ten times its tenth.
TEST(Statistics, EqualValuesHaveNoDeviation) {
  const Sample sample = summarize(std::vector<double>(10, 705892621.0));
  EXPECT_EQ(sample.mean, 705892621);
  EXPECT_EQ(sample.deviation, 0);
}

TEST(Statistics, SaysNothingWhereNothingCanBeSaid) {
  EXPECT_FALSE(welch_test(summarize({1}), summarize({2, 3})));
  EXPECT_FALSE(welch_test(summarize({2, 2}), summarize({3, 3})));
  EXPECT_FALSE(welch_test(summarize({}), summarize({})));
  EXPECT_EQ(summarize({5}).deviation, 0);
}

}  // namespace
}  // namespace nanoflex
