// Kernels with a mask and score program plugged in, written by hand, against fp64.
#include "tests/simt/flash_kernels.h"
//
#include <gtest/gtest.h>

#include "tests/simt/flash_non_finite.h"

namespace nanoflex::cuda {

/// Documents of 24 positions, a bias that falls with distance, and a soft cap at 3.
struct DocumentsWithSoftcap {
  static constexpr bool kHasMask = true, kHasScore = true;
  static constexpr float kCap = 3, kSlope = 0.0625f;
  __device__ __forceinline__ BlockKinds blocks() const { return {}; }
  __device__ __forceinline__ bool mask(int, int, int q, int kv) const { return q / 24 == kv / 24; }
  __device__ __forceinline__ float capped(float s, int q, int kv) const {
    return tanhf((s + kSlope * (kv - q)) / kCap);
  }
  __device__ __forceinline__ float score(float s, int, int, int q, int kv) const {
    return kCap * capped(s, q, kv);
  }
  __device__ __forceinline__ float score(float s, int, int, int q, int kv,
                                         float& derivative) const {
    const float tanh = capped(s, q, kv);
    derivative = 1 - tanh * tanh;
    return kCap * tanh;
  }
};

}  // namespace nanoflex::cuda

namespace nanoflex::simt {
namespace {

using cuda::DocumentsWithSoftcap;
using Bf16 = __nv_bfloat16;

Problem documents_with_softcap(Problem p) {
  const auto capped = [](double s, int q, int kv) { return std::tanh((s + (kv - q) / 16.0) / 3); };
  p.mask = [](int q, int kv) { return q / 24 == kv / 24; };
  p.score = [capped](double s, int q, int kv) { return 3 * capped(s, q, kv); };
  p.derivative = [capped](double s, int q, int kv) { return 1 - std::pow(capped(s, q, kv), 2); };
  return p;
}

void expect_close(const Bound& bound, const Results& forward, const Results& backward) {
  EXPECT_EQ(bound.why_not(&Results::o, forward.o), "") << "o";
  EXPECT_EQ(bound.why_not(&Results::dq, backward.dq), "") << "dq";
  EXPECT_EQ(bound.why_not(&Results::dk, backward.dk), "") << "dk";
  EXPECT_EQ(bound.why_not(&Results::dv, backward.dv), "") << "dv";
}

TEST(FlashProgram, MasksAndScoresIn16Bits) {
  const Problem p = documents_with_softcap({.H = 2, .T = 60, .S = 80, .D = 32});
  const Inputs x = random_inputs(p, rounded<Bf16>);
  const Results truth = plain_attention(p, x), plain = plain_attention(p, x, rounded<Bf16>);
  using Config = cuda::ForwardConfig<Bf16, 32, cuda::forward_shape(32, cuda::Gpu::large)>;
  const Results forward =
      run_forward<Config, cuda::ForwardFeatures<false>, DocumentsWithSoftcap>(p, x);
  const Results backward =
      run_backward<Bf16, 32, cuda::Gpu::large, false, DocumentsWithSoftcap>(p, x, forward);
  expect_close({truth, plain, Dtype<Bf16>::kEpsilon}, forward, backward);
}

TEST(FlashProgram, NonFiniteInputsStayWithinTheirDocument) {
  const Problem p = documents_with_softcap({.T = 60, .S = 60, .D = 32, .right = cuda::kUnbounded});
  const Inputs x = random_inputs(p, rounded<Bf16>);
  expect_non_finite_stays_apart(p, x, [&](const Inputs& x, const Results& forward) {
    return run_backward<Bf16, 32, cuda::Gpu::large, false, DocumentsWithSoftcap>(p, x, forward);
  });
  using Config = cuda::ForwardConfig<Bf16, 32, cuda::forward_shape(32, cuda::Gpu::large)>;
  const auto forward = run_forward<Config, cuda::ForwardFeatures<false>, DocumentsWithSoftcap>;
  Inputs bad = x;
  bad.v[30 * 32] = NAN;  // the document of rows 24 to 47
  const Results expected = forward(p, x), got = forward(p, bad);
  for (int i = 0; i < 60 * 32; ++i) {
    const bool reached = i / 32 / 24 == 1 && i % 32 == 0;
    ASSERT_TRUE(reached ? std::isnan(got.o[i]) : got.o[i] == expected.o[i]) << i;
  }
}

TEST(FlashProgram, MasksAndScoresInFp32) {
  const Problem p = documents_with_softcap({.H = 2, .T = 40, .S = 60, .D = 32});
  const Inputs x = random_inputs(p, rounded<float>);
  const Results truth = plain_attention(p, x), plain = plain_attention(p, x, rounded<float>);
  const Results forward = run_forward_fp32<32, false, false, DocumentsWithSoftcap>(p, x);
  const Results backward = run_backward_fp32<32, false, false, DocumentsWithSoftcap>(p, x, forward);
  expect_close({truth, plain, Dtype<float>::kEpsilon}, forward, backward);
}

}  // namespace
}  // namespace nanoflex::simt
