// The 16-bit backward kernels in the emulator, against fp64.
#include "tests/simt/flash_kernels.h"
//
#include <gtest/gtest.h>

#include "tests/simt/flash_non_finite.h"

namespace nanoflex::simt {
namespace {

using cuda::Gpu;
using cuda::kUnbounded;
using Bf16 = __nv_bfloat16;
using Half = __half;

template <typename T, int D, Gpu gpu = Gpu::large, bool kDropout = false>
void expect_close(Problem p, int head_parts = 1) {
  p.D = D;
  SCOPED_TRACE(p.name());
  const Inputs x = random_inputs(p, rounded<T>);
  const Results truth = plain_attention(p, x);
  const Results plain = plain_attention(p, x, rounded<T>);
  // What a forward pass leaves: o in T, the logsumexp in fp32.
  Results forward = truth;
  for (double& value : forward.o) value = rounded<T>(value);
  const Results got = run_backward<T, D, gpu, kDropout>(p, x, forward, head_parts);
  const Bound bound = {truth, plain, Dtype<T>::kEpsilon};
  EXPECT_EQ(bound.why_not(&Results::dq, got.dq), "") << "dq";
  EXPECT_EQ(bound.why_not(&Results::dk, got.dk), "") << "dk";
  EXPECT_EQ(bound.why_not(&Results::dv, got.dv), "") << "dv";
}

TEST(FlashBackward, IsRightForCausalAndFullMasks) {
  expect_close<Bf16, 64>({.T = 150, .S = 150});
  expect_close<Bf16, 64>({.T = 70, .S = 100, .right = kUnbounded});
  expect_close<Half, 64>({.T = 100, .S = 100});
}

TEST(FlashBackward, IsRightForWindows) {
  expect_close<Bf16, 32>({.T = 200, .S = 200, .left = 20});
  expect_close<Bf16, 32>({.T = 60, .S = 150, .left = 40, .right = 30});
}

TEST(FlashBackward, SumsOverTheHeadsThatShareKeys) {
  expect_close<Bf16, 32>({.B = 2, .H = 4, .H_kv = 2, .T = 40, .S = 40});
  expect_close<Bf16, 32>({.B = 2, .H = 3, .H_kv = 1, .T = 40, .S = 70, .time_first = true});
}

TEST(FlashBackward, DealsTheHeadsThatShareKeysToSeveralBlocks) {
  expect_close<Bf16, 32>({.B = 2, .H = 8, .H_kv = 2, .T = 40, .S = 40}, 2);
  expect_close<Bf16, 32>({.B = 2, .H = 6, .H_kv = 2, .T = 40, .S = 70, .time_first = true}, 3);
}

TEST(FlashBackward, IsRightForRaggedLengths) {
  for (const int T : {1, 17}) expect_close<Bf16, 32>({.T = T, .S = 129});
  expect_close<Bf16, 32>({.T = 17, .S = 1, .right = kUnbounded});
}

TEST(FlashBackward, IsRightForEveryHeadSize) {
  expect_close<Bf16, 8>({.T = 40, .S = 40});
  expect_close<Bf16, 20>({.T = 40, .S = 40});  // rows of 24
  expect_close<Bf16, 40>({.T = 40, .S = 40});
  expect_close<Half, 80>({.T = 40, .S = 50});
  expect_close<Bf16, 96, Gpu::small>({.T = 40, .S = 50});
  expect_close<Bf16, 128, Gpu::small>({.T = 70, .S = 70});
  expect_close<Half, 128>({.T = 70, .S = 70});
  expect_close<Bf16, 192>({.T = 40, .S = 50});
  expect_close<Bf16, 256>({.T = 20, .S = 70});
}

TEST(FlashBackward, RowsThatSeeNothingHaveNoGradient) {
  expect_close<Bf16, 32>({.T = 70, .S = 30});  // the first 40 rows stand before every key
}

TEST(FlashBackward, DropsWhatTheForwardPassDropped) {
  expect_close<Bf16, 32, Gpu::large, true>(
      {.B = 2, .H = 2, .T = 70, .S = 90, .right = kUnbounded, .dropout = 0.3, .seed = 7});
  expect_close<Half, 64, Gpu::large, true>({.T = 40, .S = 60, .dropout = 0.1, .seed = 8});
}

TEST(FlashBackward, StandsScoresOfTenThousand) {
  expect_close<Bf16, 64>({.T = 40, .S = 80, .magnitude = 1e4});
}

TEST(FlashBackward, IsRightForRandomShapes) {
  for (const Problem& p : random_problems()) expect_close<Bf16, 32>(p);
}

TEST(FlashBackward, NonFiniteInputsReachOnlyWhoSeesThem) {
  const Problem p = {.T = 70, .S = 70, .D = 64};
  const auto both_at_once = [&](const Inputs& x, const Results& forward) {
    return run_backward<Bf16, 64, Gpu::large, false>(p, x, forward);
  };
  expect_non_finite_stays_apart(p, random_inputs(p, rounded<Bf16>), both_at_once);
  const Problem large = {.T = 35, .S = 35, .D = 192};
  const auto one_by_one = [&](const Inputs& x, const Results& forward) {
    return run_backward<Bf16, 192, Gpu::large, false>(large, x, forward);
  };
  expect_non_finite_stays_apart(large, random_inputs(large, rounded<Bf16>), one_by_one);
  const Problem half = {.T = 70, .S = 70, .D = 128};
  const auto in_half = [&](const Inputs& x, const Results& forward) {
    return run_backward<Half, 128, Gpu::large, false>(half, x, forward);
  };
  expect_non_finite_stays_apart(half, random_inputs(half, rounded<Half>), in_half);
}

TEST(FlashBackward, TwoRunsGiveEqualBits) {
  const Problem p = {.H = 2, .T = 60, .S = 60, .D = 32};
  const Inputs x = random_inputs(p, rounded<Bf16>);
  Results forward = plain_attention(p, x);
  const auto first = run_backward<Bf16, 32, Gpu::large, false>(p, x, forward);
  const auto second = run_backward<Bf16, 32, Gpu::large, false>(p, x, forward);
  EXPECT_EQ(first.dq, second.dq);
  EXPECT_EQ(first.dk, second.dk);
  EXPECT_EQ(first.dv, second.dv);
}

}  // namespace
}  // namespace nanoflex::simt
