// The programs of all cases, pair by pair, against the expressions in LibTorch.
#include "tests/simt/ptx.h"
//
#include <gtest/gtest.h>

#include "flex_programs.h"
#include "tests/simt/flex/device.h"

namespace nanoflex::cuda {

struct PairResults {
  int* mask;
  float *score, *score_again, *derivative;
};

/// Every pair of [B, H, T, S] by a thread of its own.
template <typename Program>
__global__ void run_on_pairs(const typename Program::Arguments arguments, const float* s, int H,
                             int T, int S, int pairs, PairResults results) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= pairs) return;
  const Program program = {arguments};
  const int b = i / S / T / H, h = i / S / T % H, q = i / S % T + S - T, kv = i % S;
  if constexpr (Program::kHasMask) results.mask[i] = program.mask(b, h, q, kv);
  if constexpr (Program::kHasScore) {
    results.score[i] = program.score(s[i], b, h, q, kv);
    results.score_again[i] = program.score(s[i], b, h, q, kv, results.derivative[i]);
  }
}

}  // namespace nanoflex::cuda

namespace nanoflex::simt {
namespace {

// Pairs at which a value is neither as exact as LibTorch's in fp32 nor near it. Where a comparison
// or a floor stands on its edge, one rounding more or less decides, so a few may be.
int count_wrong(const Buffer<float>& got, const Numbers& truth, const Numbers& plain) {
  int wrong = 0;
  for (size_t i = 0; i < truth.size(); ++i) {
    const double value = got.data()[i];
    if (value == truth[i] || (std::isnan(value) && std::isnan(plain[i]))) continue;
    if (value == plain[i]) continue;
    const double error = std::abs(value - truth[i]);
    const double unit = 0x1p-20 * std::max(1.0, std::abs(truth[i]));
    if (!(error <= 2 * std::abs(plain[i] - truth[i]) + unit)) ++wrong;
  }
  return wrong;
}

template <size_t index>
void expect_right_on_pairs() {
  using Program = std::tuple_element_t<index, cuda::FlexPrograms>;
  const FlexPairs pairs = flex_pairs(index, /*variant=*/1);
  SCOPED_TRACE(pairs.data.name);
  ASSERT_EQ(pairs.data.text, cuda::kFlexTexts[index]) << "constants and tensors changed it";
  const DeviceProgram<Program> device(pairs.data);
  const int count = static_cast<int>(pairs.s.size());
  const Buffer<float> s(pairs.s, Access::read);
  Buffer<int> mask(count);
  Buffer<float> score(count), score_again(count), derivative(count);
  launch({.grid = {static_cast<unsigned>(count + 127) / 128}, .block = {128}},
         cuda::run_on_pairs<Program>, device.arguments, s.data(), pairs.H, pairs.T, pairs.S, count,
         cuda::PairResults{mask.data(), score.data(), score_again.data(), derivative.data()});
  EXPECT_EQ(Program::kHasMask, !pairs.mask.empty());
  if (!pairs.mask.empty()) {
    EXPECT_EQ(mask.values(), pairs.mask);
  }
  const int few = count / 500;
  EXPECT_LE(count_wrong(score, pairs.score, pairs.score32), few);
  EXPECT_LE(count_wrong(derivative, pairs.derivative, pairs.derivative32), few) << "derivative";
  for (size_t i = 0; i < pairs.score.size(); ++i) {
    EXPECT_EQ(std::bit_cast<int>(score.data()[i]), std::bit_cast<int>(score_again.data()[i]));
  }
}

template <size_t... index>
void expect_all_right(std::index_sequence<index...>) {
  (expect_right_on_pairs<index>(), ...);
}

TEST(FlexPrograms, AreTheirExpressionsPairByPair) {
  expect_all_right(std::make_index_sequence<std::tuple_size_v<cuda::FlexPrograms>>());
}

}  // namespace
}  // namespace nanoflex::simt
