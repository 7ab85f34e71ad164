// A config means what its layers say, and a mistake in it is found before any work.
#include "trainer/config.h"

#include <gtest/gtest.h>

#include <fstream>

#include "trainer/command_line.h"
#include "trainer/train.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;

fs::path yaml_file(const std::string& text) {
  const fs::path file =
      fs::path(testing::TempDir()) / ("nanoflex_config_" + std::to_string(getpid()) + ".yaml");
  std::ofstream(file) << text;
  return file;
}

std::string rejection(const std::vector<std::string>& arguments) {
  try {
    parse_train_command(arguments);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "accepted";
}

std::string yaml_rejection(const std::string& text) {
  const std::string file = yaml_file(text).string();
  const std::string message = rejection({"--config", file});
  const size_t at = message.find(file);
  return at == std::string::npos ? message : message.substr(at + file.size());
}

Config parsed(const std::vector<std::string>& arguments) {
  return parse_train_command(arguments).config;
}

TEST(Config, TheDefaultIsTheBaseline) { EXPECT_EQ(to_json(parsed({})), to_json(Config{})); }

TEST(Config, TheCommandLineOverridesTheFileAndTheFileTheDefaults) {
  const fs::path file = yaml_file("model:\n  n_layer: 3\n  n_head: 8\n");
  const Config config = parsed({"--config", file.string(), "--n-layer", "2"});
  EXPECT_EQ(config.n_layer, 2);
  EXPECT_EQ(config.n_head, 8);
  EXPECT_EQ(config.n_embd, 128);
}

TEST(Config, SetReachesEveryKey) {
  for (const Key& key : config_keys()) {
    Config config;
    const std::string value = key_text(config, key);
    EXPECT_NO_THROW(parsed({"--set", key.path() + "=" + value})) << key.path();
  }
  EXPECT_EQ(parsed({"--set", "model.n_layer=7", "--set", "machine.seed=9"}).n_layer, 7);
}

// --max-steps 50 must not end at the default's target_flops.
TEST(Config, ALayerThatNamesABudgetReplacesTheBudgetsBelow) {
  EXPECT_FALSE(parsed({"--max-steps", "50"}).target_flops.has_value());
  const Config both = parsed({"--max-steps", "50", "--target-flops", "1e13"});
  EXPECT_EQ(both.max_steps, 50);
  EXPECT_EQ(both.target_flops, 1e13);
  EXPECT_EQ(parsed({"--n-layer", "2"}).target_flops, 2e12);
  EXPECT_EQ(rejection({"--target-flops", "null"}),
            "[config] nothing ends the run: give target_flops, max_steps or max_seconds");
}

// A recorded config names all four rates; a rate on the command line must still reach them.
TEST(Config, ALearningRateReplacesTheRatesOfTheLayersBelow) {
  const fs::path file = yaml_file("training:\n  matrix_lr: 0.5\n  embedding_lr: 0.25\n");
  EXPECT_EQ(parsed({"--config", file.string()}).matrix_lr, 0.5);
  const Config config =
      parsed({"--config", file.string(), "--learning-rate", "0.1", "--embedding-lr", "0.2"});
  EXPECT_FALSE(config.matrix_lr.has_value());
  EXPECT_EQ(config.embedding_lr, 0.2);
}

TEST(Config, AValueOfSetMayHoldACommaAndAFolderIsNoConfig) {
  EXPECT_EQ(parsed({"--set", "data.data=/a,b.txt"}).data, "/a,b.txt");
  EXPECT_NE(rejection({"--config", testing::TempDir()}).find("is a folder"), std::string::npos);
}

TEST(Config, YamlReadsBackAsTheSameConfig) {
  Config config = parsed({"--mask", "causal & window(8) | !full", "--bos-id", "3", "--matrix-lr",
                          "0.1234567890123", "--run-id", "20261121", "--data", "a: b # c"});
  Config read;
  apply_yaml(read, yaml_file(to_yaml(config)));
  EXPECT_EQ(to_json(read), to_json(config));
}

TEST(Config, EveryConfigOfTheProjectIsValid) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(source_dir() / "configs")) {
    EXPECT_NO_THROW(parsed({"--config", entry.path().string()})) << entry.path();
    ++count;
  }
  EXPECT_GE(count, 4);
}

TEST(Config, MistakesInAFileNameFileLineAndTheNearestKey) {
  EXPECT_EQ(yaml_rejection("model:\n  n_layers: 3\n"),
            ":2: unknown key 'n_layers' in section 'model'; did you mean 'n_layer'?");
  EXPECT_EQ(yaml_rejection("modle:\n  n_layer: 3\n"),
            ":1: unknown section 'modle'; did you mean 'model'?");
  EXPECT_EQ(yaml_rejection("model:\n  mask: causal\n"),
            ":2: key 'mask' belongs to section 'attention', is in 'model'");
  EXPECT_EQ(yaml_rejection("model:\n  n_layer: four\n"),
            ":2: n_layer must be a whole number, is 'four'");
  EXPECT_EQ(yaml_rejection("model:\n  n_layer: 2.5\n"),
            ":2: n_layer must be a whole number, is '2.5'");
  EXPECT_EQ(yaml_rejection("model:\n  n_layer: [1]\n"),
            ":2: n_layer must be a single value, is a list or a map");
  EXPECT_EQ(yaml_rejection("model:\n  n_layer: 1\n  n_layer: 2\n"),
            ":3: key 'n_layer' stands here twice");
  EXPECT_EQ(yaml_rejection("budget:\n  target_flops: -1\n"),
            ":2: target_flops must be at least 1, is -1");
  EXPECT_EQ(yaml_rejection("budget:\n  target_flops: .nan\n"),
            ":2: target_flops must be a number, is '.nan'");
  EXPECT_EQ(yaml_rejection("- 1\n"), ":1: must be sections that hold keys");
  EXPECT_TRUE(yaml_rejection("model: {\n").starts_with(":"));
  // Of a comma in front a parser may read documents without end.
  EXPECT_TRUE(yaml_rejection(", model:\n  n_layer: 1\n").starts_with(":1: a second document"));
  EXPECT_EQ(rejection({"--config", "/nonexistent.yaml"}),
            "[config] cannot read /nonexistent.yaml; does it exist?");
}

TEST(Config, MistakesInFlagsNameTheFlagAndTheNearest) {
  EXPECT_EQ(rejection({"--n-layers", "3"}),
            "[train] unknown flag '--n-layers'; did you mean '--n-layer'? --help lists the flags");
  EXPECT_EQ(rejection({"--n-layer", "x"}),
            "[config] --n-layer: n_layer must be a whole number, is 'x'");
  EXPECT_EQ(rejection({"--dtype", "float8"}),
            "[config] --dtype: dtype must be one of auto, float32, bfloat16, is 'float8'");
  EXPECT_EQ(rejection({"--set", "model.layers=2"}),
            "[config] --set: unknown key 'layers' in section 'model'; did you mean 'n_layer'?");
  EXPECT_EQ(rejection({"--set", "n_layer"}),
            "[train] --set must be section.key=value, is 'n_layer'");
  EXPECT_EQ(rejection({"extra"}),
            "[train] unexpected argument 'extra'; every option begins with --");
  EXPECT_NE(rejection({"--attention", "flash9"}).find("attention must be one of auto, vanilla"),
            std::string::npos);
}

TEST(Config, ContradictionsAreRefused) {
  EXPECT_EQ(rejection({"--n-embd", "100", "--n-head", "3"}),
            "[model] n_embd must be divisible by n_head, is 100 for n_head 3");
  EXPECT_EQ(rejection({"--device-batch-size", "3"}),
            "[config] device_batch_size must divide batch_size 8, is 3");
  EXPECT_EQ(rejection({"--vocab-size", "512", "--tokenizer-vocab-size", "1024"}),
            "[config] tokenizer_vocab_size must be at most vocab_size 512, is 1024");
  EXPECT_EQ(rejection({"--max-seconds", "5", "--lr-warmdown-steps", "3"}),
            "[config] lr_warmdown_steps needs an end in steps: give target_flops or max_steps");
  EXPECT_NE(rejection({"--mask", "casual"}).find("did you mean 'causal'"), std::string::npos);
}

TEST(Config, PrintConfigLeavesNothingToBeChosenAndReadsBackTheSame) {
  const std::string text = *parse_train_command({"--attention", "flex", "--print-config"}).print;
  EXPECT_EQ(text.find(": auto"), std::string::npos) << text;
  EXPECT_NE(text.find("mask: causal & document"), std::string::npos) << text;
  const fs::path file = yaml_file(text);
  EXPECT_EQ(*parse_train_command({"--config", file.string(), "--print-config"}).print, text);
}

TEST(Config, HelpListsEveryFlagUnderItsSection) {
  const std::string help = *parse_train_command({"--help"}).print;
  for (const Key& key : config_keys()) {
    EXPECT_NE(help.find("--" + key.flag()), std::string::npos) << key.flag();
    EXPECT_NE(help.find(" " + key.section + " options:"), std::string::npos) << key.section;
  }
}

}  // namespace
}  // namespace nanoflex
