// The GPT against what its definition promises a user.
#include "model/gpt.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "attention/flex/masks.h"
#include "attention/registry.h"
#include "model/head.h"

namespace nanoflex {
namespace {

constexpr GptOptions kSmall{
    .n_layer = 2, .n_head = 4, .n_kv_head = 2, .n_embd = 32, .sequence_len = 24, .vocab_size = 61};

Gpt random_model(const GptOptions& options, at::ScalarType type = at::kFloat) {
  Gpt model(options, 7, at::kCPU, type);
  const at::NoGradGuard no_grad;
  at::manual_seed(5);
  for (const Parameter& parameter : model.parameters()) {
    // Zero projections would hide the blocks from every test.
    if (parameter.value.abs().max().item<float>() == 0) at::Tensor(parameter.value).normal_(0, 0.1);
  }
  return model;
}

at::Tensor random_tokens(int64_t B, int64_t T, const GptOptions& options) {
  at::manual_seed(3);
  return at::randint(options.vocab_size, {B, T}, at::kLong);
}

AttentionChoice causal_attention(const std::string& backend = "vanilla") {
  return {.backend = backend, .spec = {.mask = flex::causal()}};
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

TEST(Gpt, FirstLossIsTheEntropyOfTheVocabulary) {
  const GptOptions options{.n_layer = 1, .n_embd = 16, .sequence_len = 8, .vocab_size = 50304};
  const Gpt model(options, 1, at::kCPU, at::kFloat);
  const at::Tensor tokens = random_tokens(2, 8, options);
  const double loss = model.loss(tokens, tokens, causal_attention(), {.count = 16}).item<double>();
  EXPECT_TRUE(std::abs(loss - std::log(50304.0)) < 1e-5) << loss;
}

TEST(Gpt, InitialWeightsHaveTheDefinedSpread) {
  const Gpt model({.n_layer = 1, .n_embd = 256, .sequence_len = 8, .vocab_size = 2048}, 1, at::kCPU,
                  at::kFloat);
  const auto spread = [&](const std::string& name) {
    for (const Parameter& p : model.parameters()) {
      if (p.name == name) return p.value.detach().std().item<double>();
    }
    return -1.0;
  };
  EXPECT_NEAR(spread("transformer.wte.weight"), 1, 0.01);
  EXPECT_NEAR(spread("transformer.h.0.attn.c_q.weight"), 1 / 16.0, 1e-3);
  EXPECT_NEAR(spread("transformer.h.0.mlp.c_fc.weight"), 1 / 16.0, 1e-3);
  EXPECT_EQ(spread("transformer.h.0.attn.c_proj.weight"), 0);
  EXPECT_EQ(spread("transformer.h.0.mlp.c_proj.weight"), 0);
  EXPECT_EQ(spread("lm_head.weight"), 0);
}

TEST(Gpt, LaterTokensNeverChangeEarlierLogits) {
  const Gpt model = random_model(kSmall);
  const at::Tensor tokens = random_tokens(2, 24, kSmall);
  at::Tensor changed = tokens.clone();
  changed.narrow(1, 12, 12).copy_((tokens.narrow(1, 12, 12) + 1) % kSmall.vocab_size);
  const at::NoGradGuard no_grad;
  const at::Tensor a = model.logits(tokens, causal_attention());
  const at::Tensor b = model.logits(changed, causal_attention());
  EXPECT_EQ(difference(a.narrow(1, 0, 12), b.narrow(1, 0, 12)), 0);
  EXPECT_TRUE(difference(a.narrow(1, 12, 12), b.narrow(1, 12, 12)) > 1e-3);
}

TEST(Gpt, EveryBackendGivesTheSameLogits) {
  const Gpt model = random_model(kSmall);
  const at::Tensor tokens = random_tokens(2, 21, kSmall);
  const at::NoGradGuard no_grad;
  const at::Tensor expected = model.logits(tokens, causal_attention("vanilla"));
  for (const std::string& backend : backend_names()) {
    const at::Tensor logits = model.logits(tokens, causal_attention(backend));
    EXPECT_TRUE(difference(logits, expected) < 5e-6) << backend;
  }
}

class Decoding : public testing::TestWithParam<int64_t> {};

TEST_P(Decoding, WithACacheGivesTheLogitsOfTheWholeSequence) {
  GptOptions options = kSmall;
  options.n_kv_head = GetParam();
  const Gpt model = random_model(options);
  const at::Tensor tokens = random_tokens(2, 24, options);
  const at::NoGradGuard no_grad;
  const at::Tensor whole = model.logits(tokens, causal_attention());
  KeyValueCache cache({.batch = 2,
                       .n_layer = 2,
                       .n_kv_head = options.n_kv_head,
                       .head_dim = options.head_dim(),
                       .capacity = 24});
  int64_t begin = 0;
  for (const int64_t chunk : {9, 1, 6, 1, 7}) {  // prefill, single tokens, chunks
    const at::Tensor logits =
        model.logits(tokens.narrow(1, begin, chunk), causal_attention(), &cache);
    EXPECT_TRUE(difference(logits, whole.narrow(1, begin, chunk)) < 5e-6) << begin;
    begin += chunk;
  }
  EXPECT_EQ(cache.length(), 24);
}

INSTANTIATE_TEST_SUITE_P(MqaGqaMha, Decoding, testing::Values(1, 2, 4));

TEST(Gpt, AFullCacheIsRefused) {
  const Gpt model = random_model(kSmall);
  KeyValueCache cache({.batch = 1, .n_layer = 2, .n_kv_head = 2, .head_dim = 8, .capacity = 4});
  const at::Tensor tokens = random_tokens(1, 5, kSmall);
  try {
    model.logits(tokens, causal_attention(), &cache);
    FAIL() << "five tokens went into a cache of four";
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find("holds 4 tokens, 5 were given"), std::string::npos)
        << error.what();
  }
}

// Two documents in one row under causal & document: changing one leaves the other's logits and
// gradients as they were, to the bit.
TEST(Gpt, DocumentsOfARowDoNotSeeEachOther) {
  const Gpt model = random_model(kSmall);
  const at::Tensor tokens = random_tokens(1, 24, kSmall);
  const at::Tensor document = at::cat({at::zeros({1, 10}), at::ones({1, 14})}, 1).to(at::kLong);
  const flex::Expression mask =
      flex::bind(flex::causal() & flex::document(), {{"document", document}});
  for (const char* backend : {"vanilla", "tiled", "flex"}) {
    const AttentionChoice attention{.backend = backend, .spec = {.mask = mask}};
    // Logits and gradients of the second document's loss while the first document varies.
    const auto second_document = [&](const at::Tensor& row) {
      at::Tensor targets = row.clone();
      targets.narrow(1, 0, 10).fill_(-1);
      for (const Parameter& p : model.parameters()) at::Tensor(p.value).mutable_grad().reset();
      const at::Tensor logits = model.logits(row, attention).narrow(1, 10, 14).clone();
      model.loss(row, targets, attention, {.count = 14}).backward();
      std::vector<at::Tensor> result = {logits};
      for (const Parameter& p : model.parameters()) {
        result.push_back(p.value.grad().to_dense().clone());
      }
      return result;
    };
    at::Tensor changed = tokens.clone();
    changed.narrow(1, 0, 10).copy_((tokens.narrow(1, 0, 10) + 17) % kSmall.vocab_size);
    const auto before = second_document(tokens), after = second_document(changed);
    for (size_t i = 0; i < before.size(); ++i) {
      EXPECT_TRUE(at::equal(before[i], after[i])) << backend << ", tensor " << i;
    }
    // The first document's logits do change, so the test looks at something.
    const at::NoGradGuard no_grad;
    EXPECT_TRUE(difference(model.logits(tokens, attention).narrow(1, 0, 10),
                           model.logits(changed, attention).narrow(1, 0, 10)) > 1e-3);
  }
}

// Training would otherwise write and read a table of zeros at every step.
TEST(Gpt, TheEmbeddingsGradientHoldsRowsOfTokensOnly) {
  const Gpt model = random_model(kSmall);
  const at::Tensor tokens = random_tokens(1, 20, kSmall);
  for (int i = 0; i < 2; ++i) {  // two micro-batches
    model.loss(tokens, tokens, causal_attention(), {.count = 40}).backward();
  }
  const at::Tensor gradient = model.parameters()[0].value.grad();
  ASSERT_TRUE(gradient.is_sparse());
  EXPECT_TRUE(gradient._nnz() <= 40) << gradient._nnz();
  const at::Tensor rows = gradient.to_dense().abs().amax(1);
  for (int64_t token = 0; token < kSmall.vocab_size; ++token) {
    const bool seen = tokens.eq(token).any().item<bool>();
    EXPECT_EQ(rows[token].item<float>() > 0, seen) << token;
  }
}

TEST(Gpt, ImpossibleSizesAreRefusedByNameAndValue) {
  const auto message = [](const GptOptions& options) -> std::string {
    try {
      check(options);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message({.n_head = 3}),
            "[model] n_embd must be divisible by n_head, is 128 for n_head 3");
  EXPECT_EQ(message({.n_kv_head = 3}),
            "[model] n_head must be divisible by n_kv_head, is 4 for n_kv_head 3");
  EXPECT_EQ(message({.n_layer = 0}), "[model] n_layer must be at least 1, is 0");
  EXPECT_EQ(
      message({.n_head = 4, .n_kv_head = 4, .n_embd = 12}),
      "[model] rotary embedding needs an even head size, n_embd / n_head is 3; change n_embd or "
      "n_head");
}

// A token reaches as far as the layers' windows together: 1 and 2 keys back.
TEST(Gpt, EveryLayerHasItsOwnMask) {
  const Gpt model = random_model(kSmall);
  AttentionChoice attention = causal_attention();
  for (const int64_t n : {1, 2}) attention.masks.push_back(flex::causal() & flex::window(n));
  const at::Tensor tokens = random_tokens(1, 24, kSmall), other = tokens.clone();
  other[0][4] = (other[0][4] + 1) % kSmall.vocab_size;
  const at::NoGradGuard no_grad;
  const at::Tensor logits = model.logits(tokens, attention),
                   changed = model.logits(other, attention);
  const at::Tensor moved = (logits - changed).abs().amax(-1)[0];
  for (int64_t t = 0; t < 24; ++t) EXPECT_EQ(moved[t].item<float>() > 0, t >= 4 && t <= 7) << t;
}

}  // namespace
}  // namespace nanoflex
