// Programs inside the attention kernels: masks with their blocks, scores and derivatives.
#include "tests/simt/flash_kernels.h"
//
#include <gtest/gtest.h>

#include "flex_programs.h"
#include "tests/simt/flex/device.h"

namespace nanoflex::simt {
namespace {

using cuda::ForwardFeatures;
using cuda::Gpu;
using cuda::kUnbounded;
using Bf16 = __nv_bfloat16;

void expect_close(const FlexAttention& all, double epsilon, const Results& forward,
                  const Results& backward) {
  const Bound bound = {all.truth, all.plain, epsilon};
  const Bound wide = {all.truth, all.plain, Dtype<float>::kEpsilon};
  EXPECT_EQ(bound.why_not(&Results::o, forward.o), "") << "o";
  EXPECT_EQ(wide.why_not(&Results::lse, forward.lse), "") << "logsumexp";
  EXPECT_EQ(bound.why_not(&Results::dq, backward.dq), "") << "dq";
  EXPECT_EQ(bound.why_not(&Results::dk, backward.dk), "") << "dk";
  EXPECT_EQ(bound.why_not(&Results::dv, backward.dv), "") << "dv";
}

template <typename Program>
void expect_right_in_16_bits(const FlexAttention& all) {
  const Problem& p = all.problem;
  SCOPED_TRACE(all.data.name + ", " + p.name());
  const DeviceProgram<Program> device(all);
  constexpr int D = 32;
  using Config = cuda::ForwardConfig<Bf16, D, cuda::forward_shape(D, Gpu::large, true)>;
  const Results forward =
      run_forward<Config, ForwardFeatures<false>, Program>(p, all.inputs, device.arguments);
  const Results backward = run_backward<Bf16, D, Gpu::large, false, Program>(p, all.inputs, forward,
                                                                             1, device.arguments);
  expect_close(all, Dtype<Bf16>::kEpsilon, forward, backward);
}
template <typename Program>
void expect_right_in_16_bits(const std::string& name, const Problem& p) {
  expect_right_in_16_bits<Program>(flex_attention(name, p, Floats::kBFloat16));
}

template <typename Program>
void expect_right_in_fp32(const FlexAttention& all) {
  const Problem& p = all.problem;
  SCOPED_TRACE(all.data.name + ", " + p.name());
  const DeviceProgram<Program> device(all);
  const Results forward =
      run_forward_fp32<32, false, false, Program>(p, all.inputs, device.arguments);
  const Results backward =
      run_backward_fp32<32, false, false, Program>(p, all.inputs, forward, 1, device.arguments);
  expect_close(all, Dtype<float>::kEpsilon, forward, backward);
}
template <typename Program>
void expect_right_in_fp32(const std::string& name, const Problem& p) {
  expect_right_in_fp32<Program>(flex_attention(name, p, Floats::kFloat));
}

// Blocks of all kinds: documents are short beside the keys that a block of rows visits.
TEST(FlexAttention, RunsMasksAndScoresIn16Bits) {
  expect_right_in_16_bits<cuda::documents_bias_softcap::FlexProgram>(
      "documents_bias_softcap", {.B = 2, .H = 2, .T = 70, .S = 140, .D = 32, .right = kUnbounded});
  expect_right_in_16_bits<cuda::heads_and_padding::FlexProgram>(
      "heads_and_padding", {.H = 4, .H_kv = 2, .T = 150, .S = 150, .D = 32});
  expect_right_in_16_bits<cuda::alibi::FlexProgram>(
      "alibi", {.H = 2, .T = 40, .S = 90, .D = 32, .time_first = true});
}

TEST(FlexAttention, RunsMasksAndScoresInFp32) {
  expect_right_in_fp32<cuda::documents_bias_softcap::FlexProgram>(
      "documents_bias_softcap", {.B = 2, .H = 2, .T = 40, .S = 100, .D = 32, .right = kUnbounded});
  expect_right_in_fp32<cuda::heads_and_padding::FlexProgram>(
      "heads_and_padding", {.H = 4, .H_kv = 2, .T = 70, .S = 90, .D = 32});
  expect_right_in_fp32<cuda::alibi::FlexProgram>("alibi", {.H = 2, .T = 40, .S = 90, .D = 32});
}

TEST(FlexAttention, ADerivativeThatIsNoNumberGoesNowhereFromAZeroWeight) {
  const Problem p = {.H = 2, .T = 40, .S = 40, .D = 32, .right = kUnbounded};
  for (const Floats floats : {Floats::kBFloat16, Floats::kFloat}) {
    FlexAttention all = flex_attention("infinite_derivative", p, floats);
    const FlexAttention same = flex_attention("finite_derivative", p, floats);
    all.truth = same.truth, all.plain = same.plain;
    using Program = cuda::infinite_derivative::FlexProgram;
    floats == Floats::kFloat ? expect_right_in_fp32<Program>(all)
                             : expect_right_in_16_bits<Program>(all);
  }
}

// Blocks are believed: where all are said to be empty, keys that the mask shows are not seen.
TEST(FlexAttention, NeverVisitsEmptyBlocks) {
  const Problem p = {.H = 2, .T = 100, .S = 200, .D = 32, .right = kUnbounded};
  for (const Floats floats : {Floats::kBFloat16, Floats::kFloat}) {
    FlexAttention all = flex_attention("few_keys", p, floats);
    std::fill(all.kinds.begin(), all.kinds.end(), 0);
    for (Results* expected : {&all.truth, &all.plain}) {
      for (Numbers* zero : {&expected->o, &expected->dq, &expected->dk, &expected->dv}) {
        std::fill(zero->begin(), zero->end(), 0);
      }
      std::fill(expected->lse.begin(), expected->lse.end(), -INFINITY);
      expected->dq_term = expected->dk_term = expected->dv_term = 0;
    }
    using Program = cuda::few_keys::FlexProgram;
    floats == Floats::kFloat ? expect_right_in_fp32<Program>(all)
                             : expect_right_in_16_bits<Program>(all);
  }
}

TEST(FlexAttention, NeverAsksTheMaskInFullBlocks) {
  const Problem p = {.H = 2, .T = 60, .S = 100, .D = 32, .right = kUnbounded};
  for (const Floats floats : {Floats::kBFloat16, Floats::kFloat}) {
    FlexAttention all = flex_attention("few_keys", p, floats);
    const FlexAttention full = flex_attention("full", p, floats);
    all.truth = full.truth, all.plain = full.plain;
    std::fill(all.kinds.begin(), all.kinds.end(), 2);
    using Program = cuda::few_keys::FlexProgram;
    floats == Floats::kFloat ? expect_right_in_fp32<Program>(all)
                             : expect_right_in_16_bits<Program>(all);
  }
}

TEST(FlexAttention, SplitsKeysOverBlocks) {
  const Problem p = {.B = 2, .H = 4, .H_kv = 2, .T = 3, .S = 300, .D = 32};
  using Program = cuda::heads_and_padding::FlexProgram;
  const FlexAttention all = flex_attention("heads_and_padding", p, Floats::kBFloat16);
  const DeviceProgram<Program> device(all);
  using Config = cuda::ForwardConfig<Bf16, 32, cuda::decode_shape(32, Gpu::large)>;
  const Results got = run_split<Config, Program>(p, all.inputs, 3, device.arguments);
  EXPECT_EQ((Bound{all.truth, all.plain, Dtype<Bf16>::kEpsilon}.why_not(&Results::o, got.o)), "");
  EXPECT_EQ((Bound{all.truth, all.plain, 0x1p-23}.why_not(&Results::lse, got.lse)), "");
}

}  // namespace
}  // namespace nanoflex::simt
