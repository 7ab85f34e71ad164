// What a model is told to say: validation, and text that it writes.
#include "trainer/evaluate.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "attention/flex/masks.h"
#include "data/shard.h"
#include "tests/trainer/small_run.h"
#include "trainer/generate.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;

constexpr GptOptions kModel = {
    .n_layer = 2, .n_head = 4, .n_kv_head = 2, .n_embd = 32, .sequence_len = 12, .vocab_size = 61};

AttentionSetup plain_attention(int64_t n_head) {
  return {.backend = "vanilla", .n_head = n_head, .mask = flex::causal()};
}

// A head of zeros gives every token the same chance, so that each costs ln(vocabulary); BOS stands
// for no byte, and counts in the loss alone.
TEST(Evaluate, BitsAreOfTextAlone) {
  const fs::path folder = fresh_folder();
  fs::create_directories(folder);
  std::string text;
  for (int i = 0; i < 300; ++i) text += "line " + std::to_string(i) + " of the text\n";
  std::ofstream(folder / "my.model", std::ios::binary) << data::train_tokenizer({text}, 300);
  const auto tokenizer = data::Tokenizer::load((folder / "my.model").string());
  std::vector<int32_t> ids;
  while (ids.size() < 200) {
    ids.push_back(static_cast<int32_t>(*tokenizer->bos_id()));
    for (const int32_t id : tokenizer->encode("line 7 of the text\n")) ids.push_back(id);
  }
  data::ShardWriter writer(folder / "tokens.bin", 320);
  writer.append(ids);
  writer.commit();
  const auto tokens = data::Tokens::open((folder / "tokens.bin").string(), 320);
  const Gpt model({.n_layer = 1,
                   .n_head = 2,
                   .n_kv_head = 1,
                   .n_embd = 16,
                   .sequence_len = 16,
                   .vocab_size = 320},
                  1, at::kCPU, at::kFloat);
  const auto found = evaluate(
      model, plain_attention(2), tokens, tokenizer.get(),
      {.batch_size = 3, .tokens = 100, .device = at::kCPU, .bos_id = *tokenizer->bos_id()});
  ASSERT_TRUE(found.has_value());
  EXPECT_NEAR(found->loss, std::log(320.0), 1e-5);
  const at::Tensor sizes = tokenizer->token_bytes();
  int64_t bytes = 0, written = 0;
  for (int64_t row = 0; row < found->tokens / 16; ++row) {
    for (int64_t i = 1; i <= 16; ++i) {
      const auto size = sizes[ids.at(17 * row + i)].item<int64_t>();
      bytes += size, written += size > 0;
    }
  }
  EXPECT_GT(found->tokens, written) << "a BOS must be among them";
  const double bits = static_cast<double>(written) * std::log2(320.0);
  EXPECT_NEAR(found->bits_per_byte.value(), bits / static_cast<double>(bytes), 1e-5);
}

// Greedy, so that whole rows without a cache tell what each token must be: of all so far, and once
// the model's sequence is full, of the later half on.
TEST(Generate, GreedyTokensAreTheLikeliestOfTheWholeContext) {
  Gpt model(kModel, 7, at::kCPU, at::kFloat);
  const at::NoGradGuard no_grad;
  at::manual_seed(5);
  for (const Parameter& parameter : model.parameters()) {
    if (parameter.value.abs().max().item<float>() == 0) at::Tensor(parameter.value).normal_(0, 0.1);
  }
  std::vector<int64_t> context = {5, 9, 3}, greedy, top;
  const AttentionSetup attention = plain_attention(kModel.n_head);
  generate(model, attention, context, {.tokens = 30, .temperature = 0, .allowed_vocab = 50},
           [&](int64_t token) { greedy.push_back(token); });
  generate(model, attention, context, {.tokens = 30, .top_k = 1, .allowed_vocab = 50},
           [&](int64_t token) { top.push_back(token); });
  ASSERT_EQ(greedy.size(), 30U);
  EXPECT_EQ(top, greedy);
  size_t begin = 0;
  for (const int64_t token : greedy) {
    if (context.size() - begin > 12) begin = context.size() - 6;
    const std::vector<int64_t> seen(context.begin() + static_cast<int64_t>(begin), context.end());
    const auto starts = at::zeros({1, static_cast<int64_t>(seen.size())}, at::kBool);
    const at::Tensor logits =
        model.logits(at::tensor(seen).unsqueeze(0), attention.bind(starts))[0][-1];
    ASSERT_EQ(token, logits.narrow(0, 0, 50).argmax().item<int64_t>()) << context.size();
    context.push_back(token);
  }
}

}  // namespace
}  // namespace nanoflex
