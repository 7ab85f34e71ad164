#include "evidence/baseline_bench.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <stdexcept>

#include "tests/evidence/bench_rows.h"
#include "trainer/train.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;

BaselineOptions small(const std::string& name) {
  const fs::path runs =
      fs::path(testing::TempDir()) / ("nanoflex_baseline_" + std::to_string(getpid()) + "_" + name);
  fs::remove_all(runs);
  BaselineOptions options{.backends = {"vanilla", "flash"}, .repeat = 2, .runs_dir = runs};
  Config& config = options.config;
  config.n_layer = 1, config.n_head = config.n_kv_head = 2, config.n_embd = 32;
  config.sequence_len = 32, config.vocab_size = 256, config.batch_size = 2;
  config.target_flops = std::nullopt;
  config.max_steps = 3, config.warmup_steps = 1, config.val_tokens = 64;
  config.data = (source_dir() / "tests" / "fixtures" / "section_a" / "tokens.bin").string();
  config.device = "cpu", config.dtype = "float32", config.threads = 1;
  return options;
}

TEST(BaselineBench, TrainsWithEachBackendInTurnAndKeepsTheRecords) {
  const BaselineOptions options = small("turns");
  testing::internal::CaptureStdout();
  const auto bench = bench_baseline(options);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "") << "--json must print JSON alone";
  expect_complete(bench);
  ASSERT_EQ(bench.at("rows").size(), 2U);
  for (const char* run : {"vanilla_1", "vanilla_2", "flash_1", "flash_2"}) {
    EXPECT_TRUE(fs::exists(options.runs_dir / run / "summary.json")) << run;
  }
  const auto &vanilla = bench.at("rows")[0], &flash = bench.at("rows")[1];
  const auto loss = [](const auto& row) { return row.at("final_loss").template get<double>(); };
  EXPECT_TRUE(std::abs(loss(vanilla) - loss(flash)) <= 1e-4);
  EXPECT_TRUE(loss(flash) > 1 && loss(flash) < 6) << loss(flash);
  EXPECT_EQ(flash.at("mask"), "causal");
  const double tokens = flash.at("tokens_per_second").get<double>();
  EXPECT_NEAR(tokens * flash.at("median_ms").get<double>() / 1e3, 64, 1e-6);
  const std::string page = baseline_markdown(bench);
  EXPECT_NE(page.find("3 steps of 64 tokens, the first 1 left out"), std::string::npos) << page;
  EXPECT_TRUE(marks_published(page, "54950")) << page;
  EXPECT_EQ(count_of(baseline_chart(bench), "<rect class='bar'"), 2U);
}

fs::path script(const fs::path& path, const std::string& lines) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << "#!/bin/sh\n" << lines << '\n';
  fs::permissions(path, fs::perms::owner_all);
  return path;
}

TEST(BaselineBench, TimesWholeCommandsBesidePyTorchs) {
  BaselineOptions options = small("whole");
  options.backends = {"vanilla", "flex"};
  const fs::path folder =
      options.runs_dir.parent_path() / (options.runs_dir.filename().string() + "_programs");
  options.program = script(folder / "train", "echo \"$@\" >> " + (folder / "typed").string());
  options.python = script(folder / "python", "sleep 0.1; echo '{\"torch\": \"9.9\"}'");
  const auto bench = bench_baseline(options);
  const auto& whole = bench.at("whole_runs");
  EXPECT_EQ(whole.at("command"),
            "./train --max-steps 3 --attention flex --device cpu --dtype float32 --threads 1");
  for (const char* side : {"seconds", "eager_seconds"}) EXPECT_EQ(whole.at(side).size(), 2U);
  EXPECT_TRUE(whole.at("eager_seconds").at(0).get<double>() >= 0.1);
  EXPECT_TRUE(whole.at("seconds").at(0).get<double>() > 0);
  std::ifstream typed(folder / "typed");
  std::string line;
  std::getline(typed, line);
  EXPECT_EQ(line, "--help") << "the first start may build";
  std::getline(typed, line);
  EXPECT_EQ(line,
            "--max-steps 3 --attention flex --device cpu --dtype float32 --threads 1 --quiet"
            " --runs-dir " +
                options.runs_dir.string() + " --run-id whole_1");
  EXPECT_NE(baseline_markdown(bench).find("| PyTorch 9.9, eager, 3 steps of the same model"),
            std::string::npos);
}

TEST(BaselineBench, SaysWhichProgramFailed) {
  BaselineOptions options = small("fails");
  options.backends = {"vanilla", "flex"}, options.repeat = 1;
  options.program = "/bin/false", options.python = "/bin/true";
  try {
    bench_baseline(options);
    FAIL() << "nothing was said";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(),
                 "[bench] '/bin/false --help' failed (exit code 1); it says above why");
  }
}

TEST(BaselineBench, RefusesRunsThatTimeNothing) {
  BaselineOptions options = small("nothing");
  options.config.max_steps = 1;
  try {
    bench_baseline(options);
    FAIL() << "nothing was refused";
  } catch (const std::invalid_argument& error) {
    EXPECT_STREQ(error.what(),
                 "[bench] no step is timed: max_steps must be above warmup_steps, 1, is 1");
  }
}

TEST(BaselineBench, QuickSaysThatItIsNotTheWholeBudget) {
  const BaselineOptions quick = baseline_options(true), full = baseline_options(false);
  EXPECT_TRUE(quick.config.max_steps > quick.config.warmup_steps);
  EXPECT_EQ(*full.config.target_flops, 2e12);
  EXPECT_FALSE(full.config.max_steps.has_value());
  BaselineOptions options = small("quick");
  options.repeat = 1, options.quick = true;
  EXPECT_NE(baseline_markdown(bench_baseline(options)).find("(quick: the whole budget pays for"),
            std::string::npos);
}

}  // namespace
}  // namespace nanoflex
