#include <cstring>

#include "data/atomic_file.h"
#include "tests/data/scratch.h"

namespace nanoflex::data {
namespace {

namespace fs = std::filesystem;

std::string header(std::vector<int32_t> start) {
  start.resize(256);
  return {reinterpret_cast<const char*>(start.data()), 1024};
}

TEST(Shard, BothWidthsReadBackWhatWasWritten) {
  const Scratch scratch;
  const std::vector<int32_t> tokens{0, 65535, 7, 40000};
  const std::vector<int64_t> expected{0, 65535, 7, 40000};
  const auto narrow = scratch.write_shard("narrow.bin", tokens, 65536);
  const auto wide = scratch.write_shard("wide.bin", tokens, 65537);
  EXPECT_EQ(fs::file_size(narrow), 1024 + 4 * 2);
  EXPECT_EQ(fs::file_size(wide), 1024 + 4 * 4);
  EXPECT_EQ(all_tokens(*Tokens::open(narrow, 65536)), expected);
  EXPECT_EQ(all_tokens(*Tokens::open(wide, 65537)), expected);
}

TEST(Shard, HandWrittenBytesOfTheFormatAreUnderstood) {
  const Scratch scratch;
  const auto narrow =
      scratch.write("a.bin", header({20240520, 1, 2}) + std::string("\x01\x02\xFF\x00", 4));
  EXPECT_EQ(all_tokens(*Tokens::open(narrow, 50304)), (std::vector<int64_t>{0x201, 255}));
  const auto wide =
      scratch.write("b.bin", header({20240801, 7, 1}) + std::string("\x01\x00\x02\x00", 4));
  EXPECT_EQ(all_tokens(*Tokens::open(wide, 200000)), std::vector<int64_t>{0x20001});
}

TEST(Shard, FoldersAndGlobsAreOneSequenceInOrderOfName) {
  const Scratch scratch;
  scratch.write_shard("shards_2.bin", {4, 5});
  scratch.write_shard("shards_1.bin", {1, 2, 3}, 100000);
  scratch.write("readme.txt", "not a shard");
  const std::vector<int64_t> expected{1, 2, 3, 4, 5};
  EXPECT_TRUE(names_shards(scratch.path("")));
  EXPECT_TRUE(names_shards(scratch.path("*.bin")));
  EXPECT_FALSE(names_shards(scratch.path("readme.txt")));
  for (const auto& path : {scratch.path(""), scratch.path("shards_?.bin")}) {
    const auto tokens = Tokens::open(path, 50304);
    EXPECT_EQ(all_tokens(*tokens), expected);
    EXPECT_EQ(tokens->at(3), 4);
    EXPECT_EQ(tokens->find(5, 0), 4);
    EXPECT_EQ(tokens->find(2, 2), 5);
    EXPECT_EQ(tokens->find(-1, 0), 5);
    EXPECT_EQ(all_tokens(*tokens->slice(2, 4)), (std::vector<int64_t>{3, 4}));
    EXPECT_EQ(tokens->slice(3, 5)->find(5, 0), 1);
    EXPECT_THROW(tokens->at(5), std::out_of_range);
  }
}

TEST(Shard, WhatIsNotAWholeShardIsRefusedByName) {
  const Scratch scratch;
  const auto open = [&](const std::string& name, const std::string& bytes) {
    return [file = scratch.write(name, bytes)] { Tokens::open(file, 50304); };
  };
  expect_refusal("short.bin: not a token shard: 5 bytes", open("short.bin", "hello"));
  expect_refusal("magic.bin: not a token shard: its magic number is 1",
                 open("magic.bin", header({1, 1, 0})));
  expect_refusal("version.bin: shard version 3 is not supported, must be 1",
                 open("version.bin", header({20240520, 3, 0})));
  expect_refusal("wide.bin: shard version 1 is not supported, must be 7",
                 open("wide.bin", header({20240801, 1, 0})));
  expect_refusal("cut.bin: the header promises 3 tokens (1030 bytes), but the file has 1028 bytes",
                 open("cut.bin", header({20240520, 1, 3}) + "abcd"));
  expect_refusal("negative.bin: the header promises -1 tokens",
                 open("negative.bin", header({20240520, 1, -1})));
  expect_refusal("huge.bin: the header promises 2147483647 tokens",
                 open("huge.bin", header({20240801, 7, 2147483647})));
  expect_refusal("none.bin: the shard holds no tokens", open("none.bin", header({20240520, 1, 0})));
  expect_refusal("no .bin shards at", [&] { Tokens::open(scratch.path("x*.bin"), 50304); });
}

TEST(Shard, ATokenBeyondTheVocabularyIsRefusedWithItsPosition) {
  const Scratch scratch;
  const auto narrow = scratch.write_shard("narrow.bin", {1, 2, 300, 4});
  expect_refusal("narrow.bin: token 300 at position 2 is not below vocab_size 300",
                 [&] { Tokens::open(narrow, 300); });
  EXPECT_EQ(Tokens::open(narrow, 301)->size(), 4);
  const auto wide = scratch.write_shard("wide.bin", {1, 2, -1}, 100000);
  expect_refusal("token 4294967295 at position 2", [&] { Tokens::open(wide, 100000); });
}

TEST(Shard, NothingAppearsUntilCommitAndNothingIsLeftBehind) {
  const Scratch scratch;
  const auto path = scratch.write_shard("a.bin", {1});
  {
    ShardWriter writer(path, 50304);
    writer.append(std::vector<int32_t>{2, 3});
  }
  EXPECT_EQ(all_tokens(*Tokens::open(path, 50304)), std::vector<int64_t>{1});
  EXPECT_EQ(std::distance(fs::directory_iterator(scratch.path("")), {}), 1);
  expect_refusal("cannot create", [&] { write_atomically(scratch.path("no/such/folder"), "x"); });
}

}  // namespace
}  // namespace nanoflex::data
