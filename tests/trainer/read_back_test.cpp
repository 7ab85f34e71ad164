// A GPU's steps are queued before the loss of the one before is read. What is recorded is the same.
#include <gtest/gtest.h>

#include <fstream>

#include "tests/trainer/small_run.h"
#include "trainer/checkpoint.h"

namespace nanoflex {
namespace {

Config validated_steps() {
  Config config = eight_steps();
  config.val_interval = 3;
  return config;
}

std::filesystem::path run_of(const Config& config, ReadBack read_back) {
  return train(config, {"train"}, std::nullopt, read_back).folder;
}

TEST(ReadBack, BehindTheNextStepLeavesTheSameRecord) {
  const auto at_once = run_of(validated_steps(), ReadBack::kAtOnce);
  const auto behind = run_of(validated_steps(), ReadBack::kBehind);
  EXPECT_EQ(steps(behind), steps(at_once));
  EXPECT_EQ(steps(behind).size(), 8);
  for (const int64_t step : {6, 8}) {
    for (const char* file : {"model.safetensors", "training.safetensors"}) {
      EXPECT_EQ(bytes(checkpoint_folder(behind, step) / file),
                bytes(checkpoint_folder(at_once, step) / file))
          << step;
    }
  }
}

TEST(ReadBack, BehindTheNextStepEveryStepHasATime) {
  const auto run = run_of(eight_steps(), ReadBack::kBehind);
  double measured = 0;
  std::ifstream lines(run / "metrics.jsonl");
  for (std::string line; std::getline(lines, line);) {
    const double seconds = nlohmann::json::parse(line).at("step_seconds");
    EXPECT_GT(seconds, 0);
    measured += seconds;
  }
  EXPECT_LE(measured, read_json(checkpoint_folder(run, 8) / "state.json").at("elapsed_seconds"));
}

TEST(ReadBack, BehindTheNextStepALossThatIsNotFiniteStopsTheRunAtItsStep) {
  const auto stopped = [](ReadBack read_back) -> std::string {
    Config config = eight_steps();
    config.learning_rate = 1e30;
    try {
      run_of(config, read_back);
    } catch (const std::runtime_error& problem) {
      const std::string text = problem.what();
      return text.substr(0, text.find(';'));
    }
    return "finished";
  };
  const std::string at_once = stopped(ReadBack::kAtOnce);
  EXPECT_TRUE(has(at_once, "[train] step 2: loss ")) << at_once;
  EXPECT_EQ(stopped(ReadBack::kBehind), at_once);
}

}  // namespace
}  // namespace nanoflex
