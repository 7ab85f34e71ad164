#include "evidence/verify_attention.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <stdexcept>

#include "attention/registry.h"
#include "model/safetensors.h"

namespace nanoflex {
namespace {

std::filesystem::path scratch(const std::string& name) {
  return std::filesystem::path(testing::TempDir()) /
         ("nanoflex_verify_" + std::to_string(getpid()) + "_" + name);
}

std::map<std::string, at::Tensor> inputs() {
  at::manual_seed(2);
  return {{"q", at::randn({2, 4, 9, 16})},
          {"k", at::randn({2, 2, 12, 16})},
          {"v", at::randn({2, 2, 12, 16})},
          {"do", at::randn({2, 4, 9, 16})}};
}

std::map<std::string, at::Tensor> verified(const std::map<std::string, at::Tensor>& tensors,
                                           VerifyAttentionOptions options) {
  options.tensors = scratch("in.safetensors");
  options.out = scratch("out.safetensors");
  write_safetensors(options.tensors, tensors);
  verify_attention(options);
  return read_safetensors(options.out);
}

std::string refused_tensors(const std::map<std::string, at::Tensor>& tensors) {
  try {
    verified(tensors, {});
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

TEST(VerifyAttention, BackendsWriteTheSameResultsAndGradients) {
  const auto truth = verified(inputs(), {.mask = "causal & window(5)", .backend = "vanilla"});
  EXPECT_EQ(truth.size(), 5U);
  for (const char* backend : {"flash", "tiled", "flex", "auto"}) {
    const auto result = verified(inputs(), {.mask = "causal & window(5)", .backend = backend});
    ASSERT_EQ(result.size(), truth.size()) << backend;
    for (const auto& [name, tensor] : truth) {
      EXPECT_TRUE(at::allclose(result.at(name), tensor, 1e-4, 1e-5)) << backend << " " << name;
    }
  }
}

TEST(VerifyAttention, WithoutLogsumexpOrGradientsWhereThereAreNone) {
  auto tensors = inputs();
  tensors.erase("do");
  const auto result = verified(tensors, {.backend = "sdpa"});
  EXPECT_EQ(result.size(), 1U);
  EXPECT_TRUE(result.contains("o"));
}

TEST(VerifyAttention, CapturedTensorsAreBoundByName) {
  auto tensors = inputs();
  tensors["document"] = at::zeros({2, 12}, at::kLong);
  const auto one = verified(tensors, {.mask = "causal & document", .backend = "vanilla"});
  const auto plain = verified(inputs(), {.mask = "causal", .backend = "vanilla"});
  EXPECT_TRUE(one.at("o").equal(plain.at("o")));
  tensors["document"].narrow(1, 6, 6).fill_(1);
  const auto two = verified(tensors, {.mask = "causal & document", .backend = "vanilla"});
  EXPECT_FALSE(two.at("o").equal(plain.at("o")));
}

TEST(VerifyAttention, ScoresReadTensorsAndGiveTheirGradients) {
  auto tensors = inputs();
  tensors["slope"] = at::randn({4});
  tensors["bias"] = at::randn({4, 24});
  const VerifyAttentionOptions options = {
      .mask = "causal | kv < 2",
      .score = "softcap(3) + slope[h] * (kv - q) + bias[h][q - kv + 12]"};
  VerifyAttentionOptions vanilla = options, flex = options;
  vanilla.backend = "vanilla", flex.backend = "flex";
  const auto truth = verified(tensors, vanilla), result = verified(tensors, flex);
  EXPECT_EQ(truth.size(), 7U);
  ASSERT_EQ(result.size(), truth.size());
  for (const auto& [name, tensor] : truth) {
    EXPECT_TRUE(at::allclose(result.at(name), tensor, 1e-4, 1e-5)) << name;
  }
  EXPECT_EQ(result.at("d_bias").sizes(), tensors.at("bias").sizes());
  const auto alibi = verified(inputs(), {.score = "alibi", .backend = "flex"});
  EXPECT_FALSE(alibi.at("o").equal(verified(inputs(), {.backend = "flex"}).at("o")));
}

TEST(VerifyAttention, SaysWhatTheFileLacks) {
  auto tensors = inputs();
  tensors.erase("k");
  EXPECT_NE(refused_tensors(tensors).find("has no tensor 'k'; it needs q, k and v"),
            std::string::npos);
  tensors = inputs();
  tensors["do"] = at::zeros({2, 4, 9, 8});
  EXPECT_EQ(refused_tensors(tensors),
            "[verify] do must be like q, float [2, 4, 9, 16], is float [2, 4, 9, 8]");
}

}  // namespace
}  // namespace nanoflex
