// Weights that are cast once a step, against casting them wherever they are used.
#include "model/cast_weight.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "attention/flex/masks.h"
#include "model/weights.h"

namespace nanoflex {
namespace {

constexpr GptOptions kTiny{
    .n_layer = 1, .n_head = 2, .n_kv_head = 1, .n_embd = 16, .sequence_len = 8, .vocab_size = 37};

at::Tensor random_weight() {
  at::manual_seed(1);
  return at::randn({3, 5}).requires_grad_();
}

TEST(CastWeight, IsCastOnceAndAgainWhenItHasChanged) {
  const at::NoGradGuard no_grad;
  const std::vector<CastWeight> copies(2, random_weight());
  const CastWeight &weight = copies[0], &same = copies[1];
  const at::Tensor copy = weight.in(at::kBFloat16);
  EXPECT_TRUE(at::equal(copy, weight.value().to(at::kBFloat16)));
  EXPECT_EQ(same.in(at::kBFloat16).const_data_ptr(), copy.const_data_ptr());
  at::Tensor(weight.value()).add_(1);
  EXPECT_TRUE(at::equal(same.in(at::kBFloat16), weight.value().to(at::kBFloat16)));
  EXPECT_TRUE(at::equal(weight.in(at::kDouble), weight.value().to(at::kDouble)));
  EXPECT_TRUE(at::equal(weight.in(at::kBFloat16), weight.value().to(at::kBFloat16)));
}

TEST(CastWeight, IsItselfInItsOwnType) {
  const CastWeight weight = random_weight();
  EXPECT_TRUE(weight.in(at::kFloat).is_same(weight.value()));
  EXPECT_EQ(weight.copy_in(at::kFloat).const_data_ptr(), weight.value().const_data_ptr());
  EXPECT_FALSE(weight.bfloat16_copy().defined());
}

TEST(CastWeight, ItsGradientIsThatOfTheCast) {
  const at::Tensor x = at::randn({4, 5}).to(at::kBFloat16);
  const CastWeight weight = random_weight();
  const at::Tensor plain = random_weight();
  const auto twice = [&](const at::Tensor& leaf, const auto& in) {
    for (int use = 0; use < 2; ++use) at::mm(x, in().t()).square().sum().backward();
    return leaf.grad();
  };
  EXPECT_TRUE(at::equal(twice(weight.value(), [&] { return weight.in(at::kBFloat16); }),
                        twice(plain, [&] { return plain.to(at::kBFloat16); })));
  EXPECT_EQ(weight.value().grad().scalar_type(), at::kFloat);
}

TEST(CastWeight, LoadedWeightsAreThoseThatTheModelComputesWith) {
  const auto file = std::filesystem::path(testing::TempDir()) / "cast_weight.safetensors";
  const Gpt other(kTiny, 2, at::kCPU, at::kFloat);
  save_weights(other, file);
  Gpt fresh(kTiny, 3, at::kCPU, at::kBFloat16), used(kTiny, 4, at::kCPU, at::kBFloat16);
  const at::Tensor tokens = at::arange(8).view({1, 8});
  const AttentionChoice attention{.backend = "vanilla", .spec = {.mask = flex::causal()}};
  const at::NoGradGuard no_grad;
  const at::Tensor before = used.hidden(tokens, attention);
  load_weights(fresh, file);
  load_weights(used, file);
  EXPECT_TRUE(at::equal(used.hidden(tokens, attention), fresh.hidden(tokens, attention)));
  EXPECT_FALSE(at::equal(used.hidden(tokens, attention), before));
}

}  // namespace
}  // namespace nanoflex
