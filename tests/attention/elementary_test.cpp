// What the kernels' own functions promise of their errors.
#include "attention/cpu/elementary.h"

#include <gtest/gtest.h>

#include <cmath>

#include "attention/cpu/rounded_exp2.h"

namespace nanoflex::cpu {
namespace {

constexpr double kMost = 4e-7;  // three units in the last place

TEST(Elementary, TanhIsRightToAFewUnits) {
  using E = Elementary<8>;
  double most = 0;
  for (double at = 1e-6; at < 12; at *= 1.00003) {
    E::F x{};
    for (int lane = 0; lane < 8; ++lane) x[lane] = static_cast<float>(lane % 2 ? at : -at * lane);
    const E::F y = E::tanh(x);
    for (int lane = 0; lane < 8; ++lane) {
      const double truth = std::tanh(static_cast<double>(x[lane]));
      if (truth != 0) most = std::max(most, std::abs(y[lane] / truth - 1));
    }
  }
  EXPECT_LT(most, kMost);
}

TEST(Elementary, TanhOfALaneDoesNotDependOnTheOthers) {
  using E = Elementary<8>;
  for (float at = 0.01f; at < 1; at += 0.01f) {
    const E::F alone = E::tanh(E::V::broadcast(at));
    const E::F beside = E::tanh(E::F{at, 5, -3, 0.7f, at, 1, 2, 3});
    EXPECT_EQ(alone[0], beside[0]);
    EXPECT_EQ(alone[0], beside[4]);
    E::F both[] = {E::V::broadcast(at), E::V::broadcast(2.0f)};
    E::tanh(both);
    EXPECT_EQ(alone[0], both[0][0]);
  }
  const E::F odd = E::tanh(E::F{__builtin_nanf(""), INFINITY, -INFINITY});
  EXPECT_TRUE(std::isnan(odd[0]));
  EXPECT_NEAR(odd[1], 1, kMost);
  EXPECT_NEAR(odd[2], -1, kMost);
}

TEST(RoundedExp2, HasTheErrorsThatItSays) {
  using P = RoundedExp2;
  double squares = 0, sum = 0, most = 0;
  int64_t count = 0;
  for (double x = -20; x < 20; x += 0.0003) {
    const float place = static_cast<float>(x) * P::kSteps + P::kZero;
    const P::F both = P::V::broadcast(place);
    const double power = P::lower(P::powers(P::places(both, both)))[3];
    const double error = power / std::exp2(x) - 1;
    squares += error * error, sum += error, most = std::max(most, std::abs(error)), ++count;
  }
  EXPECT_LT(std::sqrt(squares / count), 0.00195);
  EXPECT_LT(std::abs(sum / count), 0.00005);
  EXPECT_LT(most, 0.00615);
}

}  // namespace
}  // namespace nanoflex::cpu
