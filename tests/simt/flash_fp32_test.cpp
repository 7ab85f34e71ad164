// The fp32 kernels, with fused multiply-adds and in tf32, in the emulator against fp64.
#include "tests/simt/flash_kernels.h"
//
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/simt/flash_non_finite.h"

namespace nanoflex::simt {
namespace {

using cuda::kUnbounded;

/// A number of 11 bits, as tf32 multiplies them.
double rounded_to_tf32(double x) {
  if (x == 0 || !std::isfinite(x)) return x;
  const double unit = std::exp2(std::floor(std::log2(std::abs(x))) - 10);
  return std::nearbyint(x / unit) * unit;
}

template <int D, bool kDropout = false, bool kTf32 = false>
void expect_close(Problem p, int head_parts = 1) {
  p.D = D;
  SCOPED_TRACE(p.name() + (kTf32 ? " tf32" : ""));
  const double epsilon = kTf32 ? 0x1p-10 : Dtype<float>::kEpsilon;
  const Rounding rounding = kTf32 ? rounded_to_tf32 : rounded<float>;
  const Inputs x = random_inputs(p, rounded<float>);
  const Results truth = plain_attention(p, x), plain = plain_attention(p, x, rounding);
  const Bound bound = {truth, plain, epsilon};
  const Results forward = run_forward_fp32<D, kTf32, kDropout>(p, x);
  EXPECT_EQ(bound.why_not(&Results::o, forward.o), "") << "o";
  EXPECT_EQ(bound.why_not(&Results::lse, forward.lse), "") << "logsumexp";
  const Results backward = run_backward_fp32<D, kTf32, kDropout>(p, x, forward, head_parts);
  EXPECT_EQ(bound.why_not(&Results::dq, backward.dq), "") << "dq";
  EXPECT_EQ(bound.why_not(&Results::dk, backward.dk), "") << "dk";
  EXPECT_EQ(bound.why_not(&Results::dv, backward.dv), "") << "dv";
}

TEST(FlashFp32, IsRightForCausalFullAndWindowMasks) {
  expect_close<32>({.H = 2, .T = 100, .S = 100});
  expect_close<64>({.T = 40, .S = 70, .right = kUnbounded});
  expect_close<32>({.T = 70, .S = 100, .left = 20, .right = 10});
}

TEST(FlashFp32, IsRightForGroupedHeadsAndRaggedShapes) {
  expect_close<8>({.B = 2, .H = 4, .H_kv = 2, .T = 17, .S = 40, .time_first = true});
  expect_close<8>({.B = 2, .H = 4, .H_kv = 2, .T = 17, .S = 40}, 2);
  expect_close<20>({.H = 3, .H_kv = 1, .T = 1, .S = 70});
  expect_close<80>({.T = 40, .S = 40});
}

TEST(FlashFp32, IsRightForLargeHeads) {
  expect_close<128>({.T = 33, .S = 40});
  expect_close<192>({.T = 20, .S = 40});
  expect_close<256>({.T = 20, .S = 40});
}

TEST(FlashFp32, RowsThatSeeNothing) { expect_close<32>({.T = 70, .S = 30}); }

// As where a result of partial attention is merged by its logsumexp of -inf.
TEST(FlashFp32, RowsThatSeeNothingPassNoGradientOnWhateverTheirsIs) {
  const Problem p = {.T = 70, .S = 30, .D = 32};
  Inputs x = random_inputs(p, rounded<float>);
  std::fill_n(x.d_lse.begin(), 40, 0);
  const Results forward = run_forward_fp32<32, false, false>(p, x);
  const Results expected = run_backward_fp32<32, false, false>(p, x, forward);
  std::fill_n(x.d_lse.begin(), 40, NAN);
  const Results got = run_backward_fp32<32, false, false>(p, x, forward);
  EXPECT_EQ(got.dq, expected.dq);
  EXPECT_EQ(got.dk, expected.dk);
  EXPECT_EQ(got.dv, expected.dv);
}

TEST(FlashFp32, RowsThatSeeNothingAreZeroWhateverTheValuesAre) {
  const Problem p = {.T = 70, .S = 30, .D = 32};
  Inputs x = random_inputs(p, rounded<float>);
  std::fill(x.v.begin(), x.v.end(), NAN);
  const Results got = run_forward_fp32<32, false, false>(p, x);
  EXPECT_EQ(std::count(got.o.begin(), got.o.begin() + 40 * 32, 0), 40 * 32);
  EXPECT_TRUE(std::isnan(got.o[40 * 32]));
}

template <bool kTf32>
void expect_non_finite_stays_apart_in_both_passes() {
  const Problem p = {.T = 70, .S = 70, .D = 32};
  const Inputs clean = random_inputs(p, rounded<float>);
  const Results expected = run_forward_fp32<32, kTf32, false>(p, clean);
  for (const double value : {double{INFINITY}, -double{INFINITY}, double{NAN}}) {
    Inputs bad = clean;
    bad.v[50 * 32 + 5] = value;
    const Results got = run_forward_fp32<32, kTf32, false>(p, bad);
    for (int i = 0; i < 70 * 32; ++i) {
      const bool reached = i / 32 >= 50 && i % 32 == 5;
      const bool as_value = std::isnan(value) ? std::isnan(got.o[i]) : got.o[i] == value;
      ASSERT_TRUE(reached ? as_value : got.o[i] == expected.o[i]) << value << " at " << i;
    }
  }
  expect_non_finite_stays_apart(p, clean, [&](const Inputs& x, Results forward) {
    forward.denominator = expected.denominator;
    return run_backward_fp32<32, kTf32, false>(p, x, forward);
  });
}

TEST(FlashFp32, NonFiniteInputsReachOnlyWhoSeesThem) {
  expect_non_finite_stays_apart_in_both_passes<false>();
  expect_non_finite_stays_apart_in_both_passes<true>();
}

TEST(FlashFp32, DropsWhatPhiloxSays) {
  expect_close<32, true>({.H = 2, .T = 70, .S = 40, .right = kUnbounded, .dropout = 0.3});
}

TEST(FlashFp32, StandsScoresOfTenThousand) {
  const Problem p = {.T = 40, .S = 80, .D = 64, .magnitude = 1e4};
  const Inputs x = random_inputs(p, rounded<float>);
  const Results truth = plain_attention(p, x), plain = plain_attention(p, x, rounded<float>);
  const Results forward = run_forward_fp32<64, false, false>(p, x);
  const Bound bound = {truth, plain, Dtype<float>::kEpsilon};
  EXPECT_EQ(bound.why_not(&Results::o, forward.o), "") << "o";
  EXPECT_EQ(bound.why_not(&Results::lse, forward.lse), "") << "logsumexp";
  const Results backward = run_backward_fp32<64, false, false>(p, x, forward);
  EXPECT_EQ(bound.why_not(&Results::dq, backward.dq), "") << "dq";
  EXPECT_EQ(bound.why_not(&Results::dk, backward.dk), "") << "dk";
  EXPECT_EQ(bound.why_not(&Results::dv, backward.dv), "") << "dv";
}

TEST(FlashFp32, Tf32IsRightToItsOwnPrecision) {
  expect_close<64, false, true>({.H = 2, .T = 70, .S = 80});
  expect_close<80, false, true>({.T = 40, .S = 40, .left = 20});
  expect_close<256, true, true>({.T = 20, .S = 40, .dropout = 0.2});
}

// All ones, as a GPU makes it.
TEST(FlashFp32, Tf32HandsAGpusNanOn) {
  const Problem p = {.T = 20, .S = 20, .D = 32};
  Inputs x = random_inputs(p, rounded<float>);
  x.v[3 * 32] = __builtin_bit_cast(double, 0x7fff'ffff'ffff'ffff);
  const Results got = run_forward_fp32<32, true, false>(p, x);
  EXPECT_TRUE(std::isnan(got.o[3 * 32]));
}

}  // namespace
}  // namespace nanoflex::simt
