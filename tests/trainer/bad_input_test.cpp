// What a user gets wrong is one line that names the key and the value, before anything is on disk.
#include <gtest/gtest.h>

#include <fstream>

#include "data/shard.h"
#include "tests/trainer/small_run.h"
#include "trainer/command_line.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;

std::string rejection_of(const Arguments& arguments) {
  try {
    parse_train_command(arguments);
  } catch (const std::invalid_argument& problem) {
    return problem.what();
  }
  return "accepted";
}

bool is_text(const Key& key) { return std::holds_alternative<std::string Config::*>(key.field); }

bool is_whole(const Key& key) {
  return std::holds_alternative<int64_t Config::*>(key.field) ||
         std::holds_alternative<std::optional<int64_t> Config::*>(key.field);
}

std::string just_outside(const Key& key, bool below) {
  const double value = below ? key.min - 1 : key.max * 2;
  return is_whole(key) ? std::to_string(static_cast<int64_t>(value)) : std::to_string(value);
}

// By the table, so that a new key is looked at without a line here.
TEST(BadInput, EveryKeyRefusesAMissingValueAWrongTypeAndWhatIsOutOfRange) {
  for (const Key& key : config_keys()) {
    SCOPED_TRACE(key.path());
    const auto refused = [&](const std::string& value, const std::string& why) {
      for (const Arguments& arguments : {Arguments{"--" + key.flag() + "=" + value},
                                         Arguments{"--set", key.path() + "=" + value}}) {
        const std::string message = rejection_of(arguments);
        EXPECT_TRUE(has(message, "--" + key.flag() + ": " + key.name + " must " + why)) << message;
        EXPECT_FALSE(has(message, "\n")) << message;
      }
    };
    EXPECT_TRUE(has(rejection_of({"--" + key.flag()}), "is missing an argument; --help"));
    if (is_text(key)) {
      if (!key.choices.empty()) refused("other", "be one of ");
      if (!key_text(Config{}, key).empty()) refused("", "not be empty");
      refused("a\xff", "be UTF-8, is 'a");
      const bool may_have_lines = key.name == "mask" || key.name == "score";
      if (!may_have_lines) refused("a\x1b[31m\tb", "hold no control characters, is 'a?[31m?b'");
      continue;
    }
    const std::string kind = is_whole(key) ? "be a whole number, is '" : "be a number, is '";
    for (const char* wrong : {"x", "", "1x", " 1", "nan", "[1]"}) refused(wrong, kind + wrong);
    if (is_whole(key)) refused("1.5", kind + "1.5");
    refused(just_outside(key, true), "be at least ");
    refused(just_outside(key, false), "be at most ");
  }
}

TEST(BadInput, SettingsThatContradictEachOtherAreRefused) {
  const std::pair<Arguments, const char*> cases[] = {
      {{"--n-embd", "100", "--n-head", "3"}, "n_embd must be divisible by n_head, is 100 for"},
      {{"--n-head", "4", "--n-kv-head", "3"}, "n_head must be divisible by n_kv_head, is 4 for"},
      {{"--n-embd", "12"}, "rotary embedding needs an even head size, n_embd / n_head is 3"},
      {{"--n-embd", "2048"}, "n_embd / n_head must be at most 256, is 512; raise n_head"},
      {{"--val-interval", "5", "--val-tokens", "0"}, "val_interval 5 needs tokens to validate on"},
      {{"--vocab-size", "300", "--tokenizer-vocab-size", "400"}, "at most vocab_size 300, is 400"},
      {{"--mask", "window(-1)"}, "window(n) needs an integer n of at least 0"},
      {{"--quiet", "--json-lines"}, "give --quiet or --json-lines, not both"},
      {{"--quiet", "--progress", "text"},
       "output.progress is given twice, as 'text' and as 'none'; leave one out"},
      {{"--set", "model.n_layer=2", "--n-layer", "3"},
       "model.n_layer is given twice, as '2' and as '3'; leave one out"},
      {{"--branch"}, "--branch needs --resume RUN"},
  };
  for (const auto& [arguments, why] : cases) {
    EXPECT_TRUE(has(rejection_of(arguments), why)) << rejection_of(arguments);
  }
}

TEST(BadInput, APathThatCannotBeLookedAtIsNamedWithTheReason) {
  const std::string name(300, 'a');
  testing::internal::CaptureStderr();
  EXPECT_EQ(run_program([&] { return parse_train_command({"--config", name}).print ? 1 : 0; }), 2);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "error: [files] " + name + ": File name too long\n");
}

TEST(BadInput, AnExpressionOfSeveralLinesIsOneSetting) {
  const std::string mask = "causal &\n document";
  const TrainCommand command =
      parse_train_command({"--set", "attention.mask=" + mask, "--set", "model.n_layer=2"});
  EXPECT_EQ(command.config.mask, mask);
  EXPECT_EQ(command.config.n_layer, 2);
}

TEST(BadInput, AConfigIsOneDocument) {
  const fs::path folder = fresh_folder();
  fs::create_directories(folder);
  std::ofstream(folder / "two.yaml") << "model:\n  n_layer: 1\n---\nmodel:\n  n_layer: 2\n";
  EXPECT_TRUE(has(rejection_of({"--config", (folder / "two.yaml").string()}),
                  "two.yaml:3: a second document begins; a config is one"));
  std::ofstream(folder / "empty.yaml") << "";
  EXPECT_EQ(rejection_of({"--config", (folder / "empty.yaml").string()}), "accepted");
}

TEST(BadInput, WhatTheDataShowsIsRefusedBeforeARunFolderIsMade) {
  const auto changed = [](auto change) {
    Config config = reference_config();
    change(config);
    const std::string message = rejection(config);
    EXPECT_FALSE(fs::exists(config.runs_dir)) << message;
    EXPECT_FALSE(has(message, "\n")) << message;
    return message;
  };
  EXPECT_TRUE(has(changed([](Config& c) { c.max_steps = std::nullopt, c.target_flops = 10; }),
                  "[budget] target_flops must pay for one step of "));
  EXPECT_TRUE(has(changed([](Config& c) { c.sequence_len = 1'000'000, c.init_from = ""; }),
                  "lower batch_size or sequence_len, or give more text"));
  EXPECT_TRUE(has(changed([](Config& c) { c.vocab_size = 16, c.init_from = ""; }),
                  "is not below vocab_size 16; raise vocab_size to at least "));
  EXPECT_TRUE(has(changed([](Config& c) { c.window_pattern = "SX"; }),
                  "window_pattern must be made of S and L, is 'SX'"));
  EXPECT_TRUE(has(changed([](Config& c) {
                    c.attention = "flex", c.score = "score + slope[h]";
                    c.learned_tensors = "slope, slope";
                  }),
                  "learned_tensors must name each tensor once, names 'slope' twice"));
  EXPECT_TRUE(has(changed([](Config& c) {
                    const fs::path folder = fresh_folder();
                    fs::create_directories(folder);
                    data::ShardWriter shard(folder / "few.bin", 100);
                    shard.append(std::vector<int32_t>{1, 2, 3});
                    shard.commit();
                    c.val_data = (folder / "few.bin").string();
                  }),
                  "[data] the validation data has 3 tokens, fewer than a row of sequence_len "));
  EXPECT_TRUE(has(changed([](Config& c) { c.data = "/dev/null"; }),
                  "cannot read /dev/null: it is neither a file nor a folder"));
}

TEST(BadInput, AFolderThatCannotBeMadeIsNamedWithTheReason) {
  Config config = reference_config();
  config.runs_dir = fixture("tokens.bin").string();  // a file
  const std::string message = rejection(config);
  EXPECT_TRUE(has(message, "[run] cannot make " + config.runs_dir)) << message;
  EXPECT_TRUE(has(message, "Not a directory; choose another --runs-dir")) << message;
}

}  // namespace
}  // namespace nanoflex
