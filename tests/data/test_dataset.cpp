#include <fcntl.h>
#include <sentencepiece_trainer.h>
#include <sys/file.h>
#include <sys/wait.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "data/atomic_file.h"
#include "data/cache.h"
#include "data/corpus.h"
#include "data/text_dataset.h"
#include "tests/data/scratch.h"

namespace nanoflex::data {
namespace {

namespace fs = std::filesystem;

// Sixty documents as .jsonl.
std::string many_documents(int count = 60, const std::string& last = "") {
  std::string lines;
  for (int i = 0; i < count; ++i) {
    lines += nlohmann::json{{"text", verses(i, 8) + (i + 1 == count ? last : "")}}.dump() + "\n";
  }
  return lines;
}

DatasetOptions options_for(const Scratch& scratch, const std::string& data) {
  return {.data = data, .tokenizer_vocab_size = 400, .cache_dir = scratch.path("cache")};
}

std::vector<fs::path> cached(const Scratch& scratch) {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(scratch.path("cache"))) {
    if (entry.is_directory() && entry.path().filename() != "remembered") folders.push_back(entry);
  }
  return folders;
}

std::vector<std::string> decoded_documents(const Dataset& dataset, const Tokens& tokens) {
  std::vector<std::string> texts;
  for (int64_t begin = 0; begin < tokens.size();) {
    EXPECT_EQ(tokens.at(begin), dataset.bos_id);
    const int64_t end = tokens.find(dataset.bos_id, begin + 1);
    std::vector<int64_t> ids(end - begin - 1);
    tokens.copy(begin + 1, end - begin - 1, ids.data());
    texts.push_back(dataset.tokenizer->decode({ids.begin(), ids.end()}));
    begin = end;
  }
  return texts;
}

TEST(Dataset, EveryDocumentIsEitherTrainedOnOrHeldOutAndLedByBos) {
  const Scratch scratch;
  const auto data = scratch.write("a.jsonl", many_documents());
  const Dataset dataset = open_dataset(options_for(scratch, data));
  std::vector<std::string> train, held_out;
  for (const auto& document : read_documents(data)) {
    (is_held_out(document) ? held_out : train).push_back(document);
  }
  ASSERT_FALSE(held_out.empty());
  EXPECT_EQ(dataset.bos_id, *dataset.tokenizer->bos_id());
  EXPECT_EQ(decoded_documents(dataset, *dataset.train), train);
  EXPECT_EQ(decoded_documents(dataset, *dataset.validation), held_out);
}

TEST(Dataset, OneDocumentInTwentyIsHeldOutAndMoreTextMovesNone) {
  int held_out = 0;
  for (int i = 0; i < 2000; ++i) held_out += is_held_out("document " + std::to_string(i));
  EXPECT_GE(held_out, 70);
  EXPECT_LE(held_out, 130);
  const Scratch scratch;
  const auto few = open_dataset(options_for(scratch, scratch.write("a.jsonl", many_documents(50))));
  const auto more =
      open_dataset(options_for(scratch, scratch.write("b.jsonl", many_documents(80))));
  const auto before = decoded_documents(few, *few.validation);
  const auto after = decoded_documents(more, *more.validation);
  EXPECT_TRUE(
      std::includes(after.begin(), after.begin() + before.size(), before.begin(), before.end()));
}

TEST(Dataset, OneDocumentGivesItsLastTokensToValidation) {
  const Scratch scratch;
  const std::string text = verses(1, 300);
  const Dataset dataset = open_dataset(options_for(scratch, scratch.write("a.txt", text)));
  const auto train = decoded_documents(dataset, *dataset.train);
  const auto held_out = decoded_documents(dataset, *dataset.validation);
  ASSERT_EQ(train.size(), 1);
  ASSERT_EQ(held_out.size(), 1);
  EXPECT_EQ(train[0] + held_out[0], text);
  EXPECT_NEAR(double(dataset.validation->size()) / double(dataset.train->size()), 0.05 / 0.95,
              0.005);
}

TEST(Dataset, TheCacheIsUsedAgainAndKeyedByContent) {
  const Scratch scratch;
  const auto data = scratch.write("a.jsonl", many_documents());
  const auto options = options_for(scratch, data);
  const auto first = all_tokens(*open_dataset(options).train);
  ASSERT_EQ(cached(scratch).size(), 1);
  const auto shard = cached(scratch)[0] / "train.bin";
  const auto written = fs::last_write_time(shard);

  EXPECT_EQ(all_tokens(*open_dataset(options).train), first);
  scratch.write("same.jsonl", many_documents());
  open_dataset(options_for(scratch, scratch.path("same.jsonl")));
  EXPECT_EQ(cached(scratch).size(), 1) << "the same text under another name was prepared again";
  EXPECT_EQ(fs::last_write_time(shard), written);

  std::string changed = many_documents();
  changed[changed.size() - 6] ^= 1;
  scratch.write("a.jsonl", changed);
  open_dataset(options);
  EXPECT_EQ(cached(scratch).size(), 2) << "a changed byte must give another key";

  auto larger = options;
  larger.tokenizer_vocab_size = 420;
  EXPECT_EQ(open_dataset(larger).tokenizer->vocab_size(), 420);
  EXPECT_EQ(cached(scratch).size(), 3);
}

// One path, other bytes; and another token that begins documents.
TEST(Dataset, TokensAreThoseOfTheTokenizerThatIsNamed) {
  const Scratch scratch;
  auto options = options_for(scratch, scratch.write("a.jsonl", many_documents()));
  for (const int64_t size : {350, 380}) {
    options.tokenizer = scratch.write("my.model", train_tokenizer({verses(9, 100)}, size));
    const Dataset found = open_dataset(options);
    EXPECT_EQ(found.tokenizer->vocab_size(), size);
    EXPECT_EQ(decoded_documents(found, *found.train).front(), verses(0, 8)) << size;
  }
  options.bos_id = 7;
  EXPECT_EQ(open_dataset(options).train->at(0), 7);
  EXPECT_EQ(cached(scratch).size(), 3);
}

TEST(Dataset, AnInterruptedPreparationLeavesTheCacheUsable) {
  const Scratch scratch;
  const auto options = options_for(scratch, scratch.write("a.jsonl", many_documents()));
  const auto expected = all_tokens(*open_dataset(options).train);
  const fs::path folder = cached(scratch)[0];
  // What a killed process leaves: part of the files, under the temporary name.
  fs::rename(folder, folder.string() + ".unfinished");
  fs::remove(folder.string() + ".unfinished/validation.bin");
  EXPECT_EQ(all_tokens(*open_dataset(options).train), expected);
  EXPECT_EQ(cached(scratch), std::vector<fs::path>{folder});
  // What a broken disk leaves: a short file under the final name.
  fs::resize_file(folder / "train.bin", 1500);
  EXPECT_EQ(all_tokens(*open_dataset(options).train), expected);
}

// Its tokens would be found as those of the text before, by everyone who has that.
TEST(Dataset, ATextThatChangesWhileItIsReadIsNotKept) {
  const Scratch scratch;
  auto options = options_for(scratch, scratch.write("a.jsonl", many_documents()));
  open_dataset(options);
  const fs::path folder = cached(scratch)[0];
  fs::remove_all(folder);
  // Held until the text has been looked at, and waits to be prepared.
  const int lock = ::open((folder.string() + ".lock").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(::flock(lock, LOCK_EX), 0);
  options.log = [&](const std::string& line) {
    if (line.find("waiting for another process") == std::string::npos) return;
    scratch.write("a.jsonl", many_documents(61));
    ::flock(lock, LOCK_UN);
  };
  expect_refusal("[data] the text changed while it was read: start again",
                 [&] { open_dataset(options); });
  ::close(lock);
  EXPECT_FALSE(fs::exists(folder));
  EXPECT_NO_THROW(open_dataset(options));
}

TEST(Cache, AFailureOrADeadProcessLeavesNothingBehind) {
  const Scratch scratch;
  const fs::path folder = scratch.path("cache/thing");
  EXPECT_THROW(make_once(folder, nullptr, [](const fs::path&) { throw std::runtime_error("no"); }),
               std::runtime_error);
  EXPECT_FALSE(fs::exists(folder));
  EXPECT_FALSE(fs::exists(folder.string() + ".unfinished"));
  const pid_t child = ::fork();
  if (child == 0) {
    make_once(folder, nullptr, [](const fs::path& unfinished) {
      write_atomically(unfinished / "half", "x");
      ::_exit(0);
    });
  }
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(fs::exists(folder));
  make_once(folder, nullptr,
            [](const fs::path& unfinished) { write_atomically(unfinished / "whole", "x"); });
  EXPECT_TRUE(fs::exists(folder / "whole"));
  EXPECT_FALSE(fs::exists(folder / "half"));
}

TEST(Cache, ProcessesAtOncePrepareOnlyOnce) {
  const Scratch scratch;
  const fs::path folder = scratch.path("cache/thing");
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = ::fork();
    if (child != 0) {
      children.push_back(child);
      continue;
    }
    make_once(folder, nullptr, [&](const fs::path& unfinished) {
      ::usleep(50'000);
      write_atomically(unfinished / "by", std::to_string(i));
      write_atomically(scratch.path("made_by_" + std::to_string(i)), "x");
    });
    ::_exit(fs::exists(folder / "by") ? 0 : 1);
  }
  for (const pid_t child : children) {
    int status = 1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  int made = 0;
  for (int i = 0; i < 4; ++i) made += fs::exists(scratch.path("made_by_" + std::to_string(i)));
  EXPECT_EQ(made, 1);
}

TEST(Cache, OnlyFilesThatHaveSettledAreRemembered) {
  const Scratch scratch;
  int computed = 0;
  const auto ask = [&](const std::string& purpose, const fs::path& file) {
    return remembered(scratch.path("cache"), purpose, {file},
                      [&] { return std::to_string(++computed); });
  };
  const fs::path settled = __FILE__;
  EXPECT_EQ(ask("hash", settled), "1");
  EXPECT_EQ(ask("hash", settled), "1");
  EXPECT_EQ(ask("another purpose", settled), "2");
  const fs::path fresh = scratch.write("a.txt", "one");
  EXPECT_EQ(ask("hash", fresh), "3");
  EXPECT_EQ(ask("hash", fresh), "4") << "a file changed this second may change again unseen";
}

TEST(Dataset, ShardsHoldOutTheirLastTwentieth) {
  const Scratch scratch;
  std::vector<int32_t> tokens;
  for (int i = 0; i < 1000; ++i) tokens.push_back(i % 7 == 0 ? 50256 : i);
  const auto data = scratch.write_shard("a.bin", tokens);
  const Dataset dataset = open_dataset({.data = data});
  EXPECT_EQ(dataset.bos_id, 50256);
  EXPECT_EQ(dataset.tokenizer, nullptr);
  EXPECT_EQ(dataset.train->size(), 950);
  EXPECT_EQ(dataset.validation->size(), 50);
  EXPECT_EQ(dataset.train->at(949), 949);
  EXPECT_EQ(dataset.validation->at(0), 950);

  const Dataset chosen = open_dataset({.data = data, .bos_id = 3});
  EXPECT_EQ(chosen.bos_id, 3);
  EXPECT_EQ(chosen.train->size(), 950);

  const auto validation = scratch.write_shard("val.bin", {50256, 1, 2});
  const Dataset named = open_dataset({.data = data, .val_data = validation});
  EXPECT_EQ(named.train->size(), 1000);
  EXPECT_EQ(all_tokens(*named.validation), (std::vector<int64_t>{50256, 1, 2}));
}

TEST(Dataset, AGivenTokenizerIsUsedForTextAndLoadedForShards) {
  const Scratch scratch;
  const auto model = scratch.write("my.model", train_tokenizer({verses(9, 100)}, 350));
  auto options = options_for(scratch, scratch.write("a.jsonl", many_documents()));
  options.tokenizer = model;
  const Dataset text = open_dataset(options);
  EXPECT_EQ(text.tokenizer->path(), model);
  EXPECT_EQ(decoded_documents(text, *text.train).front(), verses(0, 8));
  options.data = scratch.write_shard("a.bin", std::vector<int32_t>(100, 5));
  const Dataset shards = open_dataset(options);
  EXPECT_EQ(shards.tokenizer->vocab_size(), 350);
  EXPECT_EQ(shards.bos_id, 5);
}

TEST(Dataset, AModelWithoutBosNeedsTheIdToBeNamed) {
  const Scratch scratch;
  const std::vector<std::string> lines{"the bird of loudest lay", "on the sole Arabian tree"};
  std::string model;
  ASSERT_TRUE(sentencepiece::SentencePieceTrainer::Train({{"model_type", "bpe"},
                                                          {"vocab_size", "40"},
                                                          {"bos_id", "-1"},
                                                          {"minloglevel", "3"},
                                                          {"hard_vocab_limit", "false"}},
                                                         lines, &model)
                  .ok());
  auto options = options_for(scratch, scratch.write("a.jsonl", many_documents()));
  options.tokenizer = scratch.write("no_bos.model", model);
  expect_refusal("defines no BOS token; name the id that begins a document with --bos-id",
                 [&] { open_dataset(options); });
  options.bos_id = 50256;
  const Dataset dataset = open_dataset(options);
  EXPECT_EQ(dataset.bos_id, 50256);
  EXPECT_EQ(dataset.train->at(0), 50256);
}

TEST(Dataset, WhatCannotBeUsedIsRefused) {
  const Scratch scratch;
  const auto model = scratch.write("my.model", train_tokenizer({verses(9, 100)}, 350));
  const auto text = scratch.write("a.txt", verses(1, 100));
  const auto shard = scratch.write_shard("a.bin", {1, 2, 3});
  const auto open = [&](DatasetOptions options) {
    options.cache_dir = scratch.path("cache");
    return [=] { open_dataset(options); };
  };
  expect_refusal("has 350 tokens, more than vocab_size 320; raise vocab_size",
                 open({.data = text, .tokenizer = model, .vocab_size = 320}));
  expect_refusal("vocabulary of at least 300, is 64", open({.data = text, .vocab_size = 64}));
  expect_refusal("val_data is for .bin shards", open({.data = text, .val_data = shard}));
  expect_refusal("bos_id must be in [0, vocab_size), is 400",
                 open({.data = shard, .vocab_size = 400, .bos_id = 400}));
  expect_refusal("token 3 at position 2 is not below vocab_size 3",
                 open({.data = shard, .vocab_size = 3}));
  expect_refusal("3 tokens, too few to hold out", open({.data = shard}));
  expect_refusal("no such file or folder", open({.data = scratch.path("none")}));
  expect_refusal("the default text is not in", open({.text_dir = scratch.path("none")}));
  scratch.write("file", "x");
  auto blocked = options_for(scratch, text);
  blocked.cache_dir = scratch.path("file/cache");
  expect_refusal("cannot create the cache folder", [&] { open_dataset(blocked); });
}

TEST(Dataset, TheDefaultTextIsPreparedFromItsFolder) {
  const Scratch scratch;
  scratch.write("text/shakespeare/a_gut.txt",
                "TITLE\n\nACT I.\n\nSCENE I.\n" + verses(1, 60) + "\nSCENE II.\n" + verses(2, 60));
  scratch.write("text/shakespeare/a_gut_f.txt", "Actus Primus.");
  auto options = options_for(scratch, "");
  options.text_dir = scratch.path("text");
  const auto documents = read_text_documents(options);
  ASSERT_EQ(documents.size(), 3);
  EXPECT_EQ(documents[1].substr(0, 17), "ACT I.\n\nSCENE I.\n");
  const Dataset unnamed = open_dataset(options);
  options.data = "shakespeare";
  EXPECT_EQ(all_tokens(*open_dataset(options).train), all_tokens(*unnamed.train));
}

}  // namespace
}  // namespace nanoflex::data
