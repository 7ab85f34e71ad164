#include "evidence/flash_lab.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "attention/attention.h"

// README.md's C++ examples, compiled (scripts/readme_examples.cmake).
void readme_examples(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

namespace nanoflex {
namespace {

at::Tensor random(at::IntArrayRef sizes) { return at::randn(sizes); }

TEST(FlashLab, TheLayerReadsItsOwnLayout) {
  at::manual_seed(1);
  const at::Tensor q = random({2, 9, 4, 16}), k = random({2, 12, 2, 16}),
                   v = random({2, 12, 2, 16});
  FlashAttention layer({.causal = true});
  const at::Tensor expected = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                                     {.mask = flex::causal()}, "vanilla")
                                  .output.transpose(1, 2);
  EXPECT_TRUE(at::allclose(layer(q, k, v), expected, 1e-5, 1e-6));
}

TEST(FlashLab, DropsInTrainingOnlyAndAnewInEachCall) {
  at::manual_seed(2);
  const at::Tensor x = random({1, 20, 2, 16});
  FlashAttention layer({.dropout = 0.5, .seed = 3}), same({.dropout = 0.5, .seed = 3}), plain;
  const at::Tensor first = layer(x, x, x), second = layer(x, x, x);
  EXPECT_FALSE(first.equal(second));
  EXPECT_TRUE(first.equal(same(x, x, x)));
  layer.eval();
  EXPECT_TRUE(layer(x, x, x).equal(plain(x, x, x)));
}

TEST(FlashLab, SaysWhyFlashIsNotAvailable) {
  EXPECT_TRUE(flash_available("cpu").available);
  const Availability none = flash_available("cuda:99");
  EXPECT_FALSE(none.available);
  EXPECT_FALSE(none.reason.empty());
  FlashAttention layer;
  EXPECT_THROW(layer(at::zeros({3, 4}), at::zeros({3, 4}), at::zeros({3, 4})),
               std::invalid_argument);
}

TEST(FlashLab, ComparesAndMeasuresBothSides) {
  const AttentionProblem problem{.B = 1, .T = 256, .H = 2, .D = 32, .repeat = 1};
  const OutputComparison outputs = compare_outputs(problem);
  EXPECT_TRUE(outputs.allclose) << outputs.max_difference;
  EXPECT_TRUE(outputs.mean_difference <= outputs.max_difference);
  const AttentionBenchmark benchmark = benchmark_attention(problem);
  EXPECT_TRUE(benchmark.standard_ms > 0 && benchmark.flash_ms > 0);
  // Two heads' scores, weights and their gradients against rows.
  EXPECT_TRUE(benchmark.flash_bytes < benchmark.standard_bytes);
}

TEST(FlashLab, MemoryGrowsWithTheRowsNotTheirSquare) {
  const auto bytes = [](int64_t T) {
    return benchmark_attention({.B = 1, .T = T, .H = 1, .D = 16, .repeat = 1}).flash_bytes;
  };
  const int64_t small = bytes(512), large = bytes(2048);
  EXPECT_TRUE(large <= 4 * small + (1 << 16)) << small << " bytes, then " << large;
  EXPECT_TRUE(large < 2048 * 2048) << "a byte a pair would be more";
}

TEST(Readme, ItsExamplesRun) {
  const at::Tensor q = random({2, 4, 16, 16}), k = random({2, 2, 16, 16});
  EXPECT_NO_THROW(readme_examples(q, k, k));
}

TEST(FlashLab, LayersDropDifferentWeightsUnlessTheyShareASeed) {
  const at::Tensor x = random({1, 20, 2, 16});
  FlashAttention a({.dropout = 0.5}), b({.dropout = 0.5});
  EXPECT_FALSE(a(x, x, x).equal(b(x, x, x)));
  FlashAttention zero({.dropout = 0.5, .seed = 0}), one({.dropout = 0.5, .seed = 1});
  zero(x, x, x);
  EXPECT_FALSE(zero(x, x, x).equal(one(x, x, x)));  // its second call, the other's first
}

}  // namespace
}  // namespace nanoflex
