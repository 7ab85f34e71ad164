#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/record_function.h>

#include <atomic>
#include <chrono>
#include <map>
#include <numeric>
#include <set>

#include "data/loader.h"
#include "tests/data/scratch.h"

namespace nanoflex::data {
namespace {

constexpr int32_t kBos = 0;

std::vector<int64_t> values(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.to(at::kLong).contiguous();
  return {flat.data_ptr<int64_t>(), flat.data_ptr<int64_t>() + flat.numel()};
}

// Documents of many lengths, whose tokens say which document and which place they are.
std::vector<int32_t> documents(int count) {
  std::vector<int32_t> tokens;
  for (int document = 0; document < count; ++document) {
    tokens.push_back(kBos);
    for (int i = 0; i < 1 + (document * 7) % 23; ++i) tokens.push_back(100 * (document + 1) + i);
  }
  return tokens;
}

std::vector<Batch> take(Loader& loader, int count) {
  std::vector<Batch> batches;
  for (int i = 0; i < count; ++i) batches.push_back(loader.next());
  return batches;
}

void expect_equal(const std::vector<Batch>& left, const std::vector<Batch>& right) {
  ASSERT_EQ(left.size(), right.size());
  for (size_t i = 0; i < left.size(); ++i) {
    EXPECT_TRUE(left[i].tokens.equal(right[i].tokens)) << "batch " << i;
    EXPECT_TRUE(left[i].targets.equal(right[i].targets)) << "batch " << i;
    EXPECT_TRUE(left[i].document_starts.equal(right[i].document_starts)) << "batch " << i;
  }
}

TEST(Loader, StreamTakesConsecutiveWindowsFromTokenZeroAndStartsOver) {
  const Scratch scratch;
  std::vector<int32_t> tokens(30);
  std::iota(tokens.begin(), tokens.end(), 0);
  for (const int64_t vocab_size : {50304, 100000}) {
    const auto data = Tokens::open(scratch.write_shard("a.bin", tokens, vocab_size), vocab_size);
    for (const bool prefetch : {false, true}) {
      Loader loader(data, {.batch_size = 2, .sequence_len = 6, .bos_id = 13, .prefetch = prefetch});
      // Windows of 13: 0..12, 13..25; four remain, so the next epoch begins.
      for (const int64_t start : {0, 13, 0, 13}) {
        const Batch batch = loader.next();
        ASSERT_EQ(batch.tokens.sizes(), at::IntArrayRef({2, 6}));
        EXPECT_TRUE(batch.tokens.equal(at::arange(start, start + 12).view({2, 6})));
        EXPECT_TRUE(batch.targets.equal(at::arange(start + 1, start + 13).view({2, 6})));
        EXPECT_EQ(batch.document_starts.scalar_type(), at::kBool);
        EXPECT_TRUE(batch.document_starts.equal(batch.tokens == 13));
      }
      EXPECT_EQ(loader.position()["epoch"], 1);
    }
  }
}

TEST(Loader, StreamUsesDataOfExactlyOneBatch) {
  const Scratch scratch;
  const auto data = Tokens::open(scratch.write_shard("a.bin", {1, 2, 3, 4, 5}), 50304);
  Loader loader(data, {.batch_size = 2, .sequence_len = 2});
  EXPECT_EQ(values(loader.next().targets), (std::vector<int64_t>{2, 3, 4, 5}));
  EXPECT_EQ(values(loader.next().tokens), (std::vector<int64_t>{1, 2, 3, 4}));
}

TEST(Loader, BestFitRowsAreFullAndMadeOfBeginningsOfDocuments) {
  const Scratch scratch;
  const auto data = Tokens::open(scratch.write_shard("a.bin", documents(200)), 50304);
  Loader loader(data, {.batch_size = 3, .sequence_len = 15, .bos_id = kBos, .packing = "best_fit"});
  for (int step = 0; step < 20; ++step) {
    const Batch batch = loader.next();
    for (int row = 0; row < 3; ++row) {
      const auto inputs = values(batch.tokens[row]), targets = values(batch.targets[row]);
      ASSERT_EQ(inputs[0], kBos);
      for (int i = 0; i + 1 < 15; ++i) ASSERT_EQ(targets[i], inputs[i + 1]);
      for (int i = 0; i < 15; ++i) {
        if (targets[i] == kBos) continue;
        // After BOS comes a document's first token, after a token the document's next.
        const bool follows =
            inputs[i] == kBos ? targets[i] % 100 == 0 : targets[i] == inputs[i] + 1;
        ASSERT_TRUE(follows) << inputs[i] << " " << targets[i];
      }
    }
    EXPECT_TRUE(batch.document_starts.equal(batch.tokens == kBos));
  }
}

TEST(Loader, BestFitTakesTheLargestThatFitsAndCropsTheShortest) {
  const Scratch scratch;
  // Documents of 4, 6, 3 and 9 tokens; rows of 8: 6, then nothing fits 2, so 3 is cropped; then 4,
  // then 9 is cropped to 4.
  const auto data =
      Tokens::open(scratch.write_shard("a.bin", {0,  11, 12, 13, 0,  21, 22, 23, 24, 25, 0,
                                                 31, 32, 0,  41, 42, 43, 44, 45, 46, 47, 48}),
                   50304);
  Loader loader(data, {.batch_size = 2, .sequence_len = 7, .bos_id = 0, .packing = "best_fit"});
  const Batch batch = loader.next();
  EXPECT_EQ(values(batch.tokens),
            (std::vector<int64_t>{0, 21, 22, 23, 24, 25, 0, 0, 11, 12, 13, 0, 41, 42}));
  EXPECT_EQ(values(batch.targets),
            (std::vector<int64_t>{21, 22, 23, 24, 25, 0, 31, 11, 12, 13, 0, 41, 42, 43}));
  EXPECT_EQ(loader.position()["buffered"].size(), 0);
}

TEST(Loader, BestFitDrawsEveryDocumentOnceAnEpoch) {
  const Scratch scratch;
  const auto data = Tokens::open(scratch.write_shard("a.bin", documents(100)), 50304);
  Loader loader(data, {.batch_size = 1, .sequence_len = 29, .bos_id = kBos, .packing = "best_fit"});
  std::map<int64_t, int> drawn;
  while (loader.position()["epoch"] == 0) {
    for (const int64_t token : values(loader.next().tokens)) {
      if (token >= 100 && token % 100 == 0) ++drawn[token / 100];
    }
  }
  // The last row may already hold documents of the next epoch, and a crop may leave BOS alone.
  EXPECT_GE(drawn.size(), 95);
  int repeated = 0;
  for (const auto& [document, count] : drawn) repeated += count - 1;
  EXPECT_LE(repeated, 5);
}

TEST(Loader, ARestoredPositionContinuesWithTheSameBatches) {
  const Scratch scratch;
  const auto data = Tokens::open(scratch.write_shard("a.bin", documents(60)), 50304);
  for (const std::string packing : {"stream", "best_fit"}) {
    for (const bool prefetch : {false, true}) {
      const LoaderOptions options{.batch_size = 2,
                                  .sequence_len = 30,
                                  .bos_id = kBos,
                                  .packing = packing,
                                  .prefetch = prefetch};
      // Far enough to begin another epoch between saving and the end.
      for (const int before : {0, 1, 5, 9}) {
        Loader whole(data, options);
        take(whole, before);
        const auto position = nlohmann::json::parse(whole.position().dump());
        const auto expected = take(whole, 12);
        Loader fresh(data, options);
        fresh.restore(position);
        EXPECT_EQ(fresh.position(), position);
        expect_equal(take(fresh, 12), expected);
        whole.restore(position);
        expect_equal(take(whole, 12), expected);
        EXPECT_EQ(whole.position(), fresh.position());
      }
    }
  }
}

TEST(Loader, PositionsThatDoNotFitAreRefusedAndChangeNothing) {
  const Scratch scratch;
  const auto data = Tokens::open(scratch.write_shard("a.bin", documents(60)), 50304);
  const auto shorter = data->slice(0, data->size() - 1);
  Loader stream(data, {.batch_size = 2, .sequence_len = 8, .bos_id = kBos});
  Loader best_fit(shorter,
                  {.batch_size = 2, .sequence_len = 8, .bos_id = kBos, .packing = "best_fit"});
  take(best_fit, 2);
  const auto before = best_fit.position();
  const auto with = [](nlohmann::json position, const char* key, const nlohmann::json& value) {
    position[key] = value;
    return position;
  };
  expect_refusal("is not an object", [&] { best_fit.restore(3); });
  expect_refusal("is of packing \"stream\", not \"best_fit\"",
                 [&] { best_fit.restore(stream.position()); });
  expect_refusal("this data has", [&] { best_fit.restore(with(before, "tokens", data->size())); });
  expect_refusal("`cursor` 9999999 is beyond",
                 [&] { best_fit.restore(with(before, "cursor", 9999999)); });
  expect_refusal("whole number `epoch`", [&] { best_fit.restore(with(before, "epoch", -1)); });
  expect_refusal("whole number `cursor`",
                 [&] { stream.restore(with(stream.position(), "cursor", 1.5)); });
  expect_refusal("`cursor` 1 is not the start",
                 [&] { best_fit.restore(with(before, "cursor", 1)); });
  expect_refusal("`buffered` 1 is not the start",
                 [&] { best_fit.restore(with(before, "buffered", {1})); });
  expect_refusal("needs a list `buffered`", [&] { best_fit.restore(with(before, "buffered", 7)); });
  EXPECT_EQ(best_fit.position(), before);
  Loader other(shorter,
               {.batch_size = 2, .sequence_len = 8, .bos_id = kBos, .packing = "best_fit"});
  take(other, 2);
  expect_equal(take(best_fit, 3), take(other, 3));
}

TEST(Loader, ImpossibleOptionsAreRefused) {
  const Scratch scratch;
  const auto data = Tokens::open(scratch.write_shard("a.bin", {1, 2, 3, 4, 5, 6, 7, 8}), 50304);
  const auto load = [&](const LoaderOptions& options) { return [=] { Loader(data, options); }; };
  expect_refusal(
      "the data has 8 tokens, fewer than the 9 of one batch (batch_size 2 x sequence_len 4); lower",
      load({.batch_size = 2, .sequence_len = 4}));
  expect_refusal("fewer than the 10",
                 load({.batch_size = 2, .sequence_len = 4, .packing = "best_fit"}));
  expect_refusal("begin with token 9",
                 load({.batch_size = 1, .sequence_len = 4, .bos_id = 9, .packing = "best_fit"}));
  expect_refusal("packing must be stream or best_fit, is greedy", load({.packing = "greedy"}));
  expect_refusal("batch_size must be at least 1, is 0", load({.batch_size = 0}));
  expect_refusal("sequence_len must be at least 1, is -4", load({.sequence_len = -4}));
}

TEST(Loader, UnreadBatchesAndUnusedLoadersEndAtOnce) {
  const Scratch scratch;
  const auto data = Tokens::open(scratch.write_shard("a.bin", documents(60)), 50304);
  for (int i = 0; i < 50; ++i) {
    Loader loader(data, {.batch_size = 1, .sequence_len = 8});
    take(loader, i % 3);
  }
}

// Else a profile's counts of a step's operations would depend on when the thread reads.
TEST(Loader, WhatItsThreadDispatchesIsNoOperationOfAStep) {
  const Scratch scratch;
  const auto data = Tokens::open(scratch.write_shard("a.bin", documents(60)), 50304);
  static std::atomic<int> operations = 0;
  const auto begin = [](const at::RecordFunction&) -> std::unique_ptr<at::ObserverContext> {
    ++operations;
    return nullptr;
  };
  const auto handle = at::addGlobalCallback(at::RecordFunctionCallback(begin));
  {
    Loader loader(data, {.batch_size = 1, .sequence_len = 8});
    take(loader, 3);
    EXPECT_EQ(operations, 0);
    at::empty({1});
    EXPECT_GT(operations, 0);
  }
  at::removeCallback(handle);
}

TEST(Prefetch, ReadsAheadOnlySoFarAndHandsOnWhatWasThrown) {
  std::atomic<int> produced = 0;
  Prefetch<int> prefetch([&] {
    if (produced == 5) throw std::runtime_error("the sixth fails");
    return produced++;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_LE(produced, 3);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(prefetch.next(), i);
  for (int i = 0; i < 2; ++i) EXPECT_THROW(prefetch.next(), std::runtime_error);
}

}  // namespace
}  // namespace nanoflex::data
