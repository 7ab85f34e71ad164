// The 16-bit forward kernel in the emulator, against fp64.
#include "tests/simt/flash_kernels.h"
//
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace nanoflex::simt {
namespace {

using cuda::ForwardConfig;
using cuda::ForwardFeatures;
using cuda::Gpu;
using cuda::kUnbounded;
using Bf16 = __nv_bfloat16;
using Half = __half;

template <typename T, int D, Gpu gpu = Gpu::large, bool kDropout = false>
void expect_close(Problem p) {
  p.D = D;
  SCOPED_TRACE(p.name());
  const Inputs x = random_inputs(p, rounded<T>);
  const Results truth = plain_attention(p, x);
  const Results plain = plain_attention(p, x, rounded<T>);
  using Config = ForwardConfig<T, D, cuda::forward_shape(D, gpu, kDropout)>;
  const Results got = run_forward<Config, ForwardFeatures<kDropout>>(p, x);
  EXPECT_EQ((Bound{truth, plain, Dtype<T>::kEpsilon}.why_not(&Results::o, got.o)), "");
  EXPECT_EQ((Bound{truth, plain, Dtype<float>::kEpsilon}.why_not(&Results::lse, got.lse)), "");
}

TEST(FlashForward, IsRightForCausalAndFullMasks) {
  expect_close<Bf16, 64>({.H = 2, .T = 200, .S = 200});
  expect_close<Bf16, 64>({.T = 70, .S = 150, .right = kUnbounded});
  expect_close<Half, 64>({.T = 150, .S = 150});
}

TEST(FlashForward, IsRightForWindows) {
  expect_close<Bf16, 32>({.T = 300, .S = 300, .left = 20});
  expect_close<Bf16, 32>({.T = 100, .S = 260, .left = 40, .right = 30});
  expect_close<Half, 32>({.T = 150, .S = 150, .left = 0, .right = kUnbounded});
}

TEST(FlashForward, IsRightForGroupedHeadsOfBothLayouts) {
  expect_close<Bf16, 32>({.B = 2, .H = 4, .H_kv = 2, .T = 40, .S = 40});
  expect_close<Bf16, 32>({.B = 2, .H = 3, .H_kv = 1, .T = 40, .S = 70, .time_first = true});
}

TEST(FlashForward, IsRightForRaggedLengths) {
  for (const int T : {1, 17}) expect_close<Bf16, 32>({.T = T, .S = 129});
  expect_close<Bf16, 32>({.T = 17, .S = 1, .right = kUnbounded});
}

TEST(FlashForward, IsRightForEveryHeadSize) {
  expect_close<Bf16, 8>({.T = 40, .S = 40});
  expect_close<Bf16, 20>({.T = 40, .S = 40});  // rows of 24
  expect_close<Bf16, 40>({.T = 40, .S = 40});
  expect_close<Half, 80>({.T = 40, .S = 70});
  expect_close<Bf16, 96, Gpu::small>({.T = 40, .S = 140});
  expect_close<Bf16, 128, Gpu::small>({.T = 140, .S = 140});
  expect_close<Half, 128, Gpu::medium>({.T = 40, .S = 100});
  expect_close<Bf16, 192>({.T = 70, .S = 130});
  expect_close<Bf16, 256, Gpu::small>({.T = 20, .S = 70});
  expect_close<Bf16, 256>({.T = 20, .S = 140});
}

TEST(FlashForward, RowsThatSeeNothingAreZeroWithLogsumexpMinusInfinity) {
  const Problem p = {.T = 70, .S = 30, .D = 32};  // the first 40 rows stand before every key
  expect_close<Bf16, 32>(p);
  const Inputs x = random_inputs(p, rounded<Bf16>);
  const Results got = run_forward<ForwardConfig<Bf16, 32, cuda::forward_shape(32, Gpu::large)>,
                                  ForwardFeatures<false>>(p, x);
  EXPECT_EQ(got.lse[39], -INFINITY);
  EXPECT_EQ(got.o[39 * 32], 0);
  EXPECT_TRUE(std::isfinite(got.lse[40]));
}

// Key 50 is seen by the rows from 50 on only.
TEST(FlashForward, InfinitiesAndNansReachOnlyTheRowsThatSeeThem) {
  const Problem p = {.T = 70, .S = 70, .D = 32};
  using Config = ForwardConfig<Bf16, 32, cuda::forward_shape(32, Gpu::large)>;
  const Inputs clean = random_inputs(p, rounded<Bf16>);
  const Results expected = run_forward<Config, ForwardFeatures<false>>(p, clean);
  for (const double value : {double{INFINITY}, -double{INFINITY}, double{NAN}}) {
    SCOPED_TRACE(value);
    Inputs bad = clean;
    std::fill_n(bad.k.begin() + 50 * 32, 32, value);
    const Results got = run_forward<Config, ForwardFeatures<false>>(p, bad);
    EXPECT_TRUE(std::equal(got.o.begin(), got.o.begin() + 50 * 32, expected.o.begin()));
    EXPECT_TRUE(std::equal(got.lse.begin(), got.lse.begin() + 50, expected.lse.begin()));
    EXPECT_TRUE(!std::isnan(value) || std::isnan(got.o[60 * 32]));
  }
}

// The rows before 50 meet it in their own step, with weight 0.
template <typename T, int D, Gpu gpu>
void expect_values_reach_who_sees_them() {
  const Problem p = {.H = 2, .T = 70, .S = 70, .D = D};
  using Config = ForwardConfig<T, D, cuda::forward_shape(D, gpu)>;
  const Inputs clean = random_inputs(p, rounded<T>);
  const Results expected = run_forward<Config, ForwardFeatures<false>>(p, clean);
  for (const double value : {double{INFINITY}, -double{INFINITY}, double{NAN}}) {
    SCOPED_TRACE(value);
    Inputs bad = clean;
    bad.v[50 * D + 5] = value;
    const Results got = run_forward<Config, ForwardFeatures<false>>(p, bad);
    for (int row = 0; row < p.H * p.T; ++row) {
      for (int column = 0; column < D; ++column) {
        const double now = got.o[row * D + column], before = expected.o[row * D + column];
        const bool reached = row % p.T >= 50 && column == 5;
        ASSERT_TRUE(reached ? std::isnan(value) ? std::isnan(now) : now == value : now == before)
            << now << " was " << before << " in row " << row << ", column " << column;
      }
    }
  }
}

TEST(FlashForward, NonFiniteValuesReachOnlyTheRowsThatSeeThem) {
  expect_values_reach_who_sees_them<Bf16, 64, Gpu::large>();
  expect_values_reach_who_sees_them<Half, 64, Gpu::large>();
  expect_values_reach_who_sees_them<Bf16, 128, Gpu::small>();  // one stage
}

// Which 0 times such a value would not be.
TEST(FlashForward, RowsThatSeeNothingAreZeroWhateverTheValuesAre) {
  const Problem p = {.T = 70, .S = 30, .D = 32};
  Inputs x = random_inputs(p, rounded<Bf16>);
  std::fill(x.v.begin(), x.v.end(), NAN);
  const Results got = run_forward<ForwardConfig<Bf16, 32, cuda::forward_shape(32, Gpu::large)>,
                                  ForwardFeatures<false>>(p, x);
  EXPECT_EQ(std::count(got.o.begin(), got.o.begin() + 40 * 32, 0), 40 * 32);
  EXPECT_TRUE(std::isnan(got.o[40 * 32]));
}

TEST(FlashForward, DropsWhatPhiloxSays) {
  expect_close<Bf16, 32, Gpu::large, true>(
      {.B = 2, .H = 2, .T = 70, .S = 90, .right = kUnbounded, .dropout = 0.3, .seed = 7});
  expect_close<Half, 128, Gpu::large, true>({.T = 40, .S = 100, .dropout = 0.1, .seed = 8});
}

TEST(FlashForward, ScoresOfTenThousandStayExact) {
  expect_close<Bf16, 64>({.T = 40, .S = 80, .magnitude = 1e4});
  expect_close<Half, 64>({.T = 40, .S = 80, .magnitude = 1e3});  // fp16 ends at 65504
}

// An error in what rescales a row would grow with every step.
TEST(FlashForward, EqualKeysLeaveNoErrorHoweverManyThereAre) {
  const Problem p = {.T = 16, .S = 16384, .D = 32, .right = kUnbounded, .magnitude = 60};
  Inputs x = random_inputs(p, rounded<Bf16>);
  for (int key = 1; key < p.S; ++key) std::copy_n(x.k.begin(), 32, x.k.begin() + key * 32);
  using Config = ForwardConfig<Bf16, 32, cuda::forward_shape(32, Gpu::large)>;
  const Results truth = plain_attention(p, x);
  const Results got = run_forward<Config, ForwardFeatures<false>>(p, x);
  for (int row = 0; row < p.T; ++row) {
    EXPECT_NEAR(got.lse[row], truth.lse[row], 2e-6 * std::max(1.0, std::abs(truth.lse[row])));
  }
}

TEST(FlashForward, IsRightForRandomShapes) {
  for (const Problem& p : random_problems()) expect_close<Bf16, 32>(p);
}

TEST(FlashForward, TwoRunsGiveEqualBits) {
  const Problem p = {.H = 2, .T = 100, .S = 100, .D = 64};
  const Inputs x = random_inputs(p, rounded<Bf16>);
  using Config = ForwardConfig<Bf16, 64, cuda::forward_shape(64, Gpu::large)>;
  EXPECT_EQ((run_forward<Config, ForwardFeatures<false>>(p, x).o),
            (run_forward<Config, ForwardFeatures<false>>(p, x).o));
}

}  // namespace
}  // namespace nanoflex::simt
