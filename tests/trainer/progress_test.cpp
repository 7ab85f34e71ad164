// What a person, or a program, sees of a run on stdout.
#include "trainer/progress.h"

#include <gtest/gtest.h>

#include <sstream>

#include "trainer/command_line.h"

namespace nanoflex {
namespace {

using nlohmann::json;

StepMetrics metrics(int64_t step) {
  return {.step = step, .loss = 10.5, .tokens_per_second = 1234, .memory_bytes = 312'000'000};
}

// What four steps and two messages print.
std::string printed(int64_t interval, const std::string& style) {
  testing::internal::CaptureStdout();
  Progress progress(interval, style);
  progress.say("run \"a\"");
  for (int64_t step = 1; step <= 4; ++step) {
    progress.step(metrics(step), {.steps = 4, .share = static_cast<double>(step) / 4});
  }
  progress.finish();
  progress.say("record: runs/a\xff");
  return testing::internal::GetCapturedStdout();
}

TEST(Progress, IsPlainLinesWhenPiped) {
  const std::string text = printed(3, "text");
  EXPECT_EQ(text.find('\033'), std::string::npos);
  EXPECT_NE(text.find("step 3/4  loss 10.5000"), std::string::npos) << text;
  EXPECT_NE(text.find("step 4/4"), std::string::npos) << "the last one is always told";
  EXPECT_EQ(text.find("step 2/4"), std::string::npos);
}

TEST(Progress, JsonLinesAreThoseOfMetricsJsonl) {
  std::istringstream lines(printed(1, "json"));
  std::vector<json> parsed;
  for (std::string line; std::getline(lines, line);) parsed.push_back(json::parse(line));
  ASSERT_EQ(parsed.size(), 6U);
  EXPECT_EQ(parsed[0], json({{"message", "run \"a\""}}));
  EXPECT_EQ(parsed[2], json(to_json(metrics(2))));
  EXPECT_TRUE(parsed[5].contains("message"));
}

TEST(Progress, NoneIsSilent) { EXPECT_EQ(printed(1, "none"), ""); }

TEST(Progress, ALineThatWrappedInANarrowerWindowIsErasedWhole) {
  EXPECT_EQ(erasure(0, 80), "");
  EXPECT_EQ(erasure(80, 80), "\r\033[J");
  EXPECT_EQ(erasure(81, 80), "\r\033[1A\033[J");
  EXPECT_EQ(erasure(100, 20), "\r\033[4A\033[J");
}

TEST(Progress, ShortFlagsNameTheStyles) {
  EXPECT_EQ(parse_train_command({"--quiet"}).config.progress, "none");
  EXPECT_EQ(parse_train_command({"--json-lines"}).config.progress, "json");
  EXPECT_EQ(parse_train_command({}).config.progress, "text");
  try {
    parse_train_command({"--quiet", "--json-lines"});
    FAIL() << "both were taken";
  } catch (const std::invalid_argument& error) {
    EXPECT_STREQ(error.what(), "[train] give --quiet or --json-lines, not both");
  }
}

}  // namespace
}  // namespace nanoflex
