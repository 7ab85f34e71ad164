// Which runs are compared, which are one group, and which break a rule.
#include "trainer/selection.h"

#include <gtest/gtest.h>

#include <functional>

#include "tests/trainer/run_records.h"
#include "tests/trainer/small_run.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

using SelectionTest = RunRecordsTest;

// Three seeds of one run and two of another, which is faster but learns the same.
std::vector<RunSummary> seeds(
    const std::function<fs::path(const std::string&, const json&)>& write) {
  std::vector<RunSummary> runs;
  for (int i = 0; i < 5; ++i) {
    json one = record("run" + std::to_string(i));
    one["config"]["machine"]["seed"] = i;
    one["results"]["tokens_per_second"] = (i < 3 ? 1000 : 2000) + i;
    one["results"]["final_loss"] = 10 + 0.01 * (i % 3);
    if (i >= 3) one["config"]["attention"]["mask"] = "full";
    runs.push_back(read_run(write("run" + std::to_string(i), one)));
  }
  return runs;
}

TEST_F(SelectionTest, RunsThatDifferInTheirSeedAloneAreOneGroup) {
  const auto runs = seeds([&](const std::string& id, const json& one) { return write(id, one); });
  const Comparison comparison = compare(runs);
  ASSERT_EQ(comparison.groups.size(), 2);
  EXPECT_EQ(comparison.groups[0].seeds, 3);
  EXPECT_EQ(comparison.groups[1].seeds, 2);
  const auto& speed = comparison.groups[1].numbers[0];
  EXPECT_DOUBLE_EQ(speed.sample.mean, 2003.5);
  EXPECT_DOUBLE_EQ(*speed.ratio, 2003.5 / 1001);
  EXPECT_LT(speed.test->p, kSignificant);
  EXPECT_GT(comparison.groups[1].numbers[3].test->p, kSignificant);
  const std::string text = to_text(comparison);
  EXPECT_TRUE(has(text, "1,001 +- 1")) << text;
  EXPECT_TRUE(has(text, "(1.000x, no significant difference, p ")) << text;
  const json parsed = json::parse(to_json(comparison));
  EXPECT_EQ(parsed["groups"][0]["seeds"], 3);
  EXPECT_TRUE(parsed["groups"][0]["final_loss"]["p"].is_null())
      << "the first has none to differ from";
  EXPECT_TRUE(compare({runs[0], runs[3]}).groups.empty());
}

TEST_F(SelectionTest, OneSeedAgainstManyIsTooFewToSay) {
  const auto runs = seeds([&](const std::string& id, const json& one) { return write(id, one); });
  EXPECT_TRUE(has(to_text(compare({runs[0], runs[1], runs[3]})), "too few seeds to say"));
}

// Runs that stopped early have not learned what the others have; one that was taken twice has not
// learned twice.
TEST_F(SelectionTest, OnlyFinishedRunsAndDifferentSeedsCount) {
  auto runs = seeds([&](const std::string& id, const json& one) { return write(id, one); });
  runs[2].status = "interrupted";
  runs.push_back(runs[4]);
  runs.back().tokens_per_second = 2010;
  const Comparison comparison = compare(runs);
  ASSERT_EQ(comparison.groups.size(), 2);
  EXPECT_EQ(comparison.groups[0].seeds, 2);
  EXPECT_EQ(comparison.groups[1].seeds, 2);
  EXPECT_EQ(comparison.groups[1].numbers[0].sample.count, 3);
  EXPECT_EQ(comparison.groups[1].numbers[3].sample.count, 2);
  EXPECT_TRUE(has(to_text(comparison), "(1.00x, the same for all seeds)")) << to_text(comparison);
}

// What was measured with another build or elsewhere is another variant, whatever its config.
TEST_F(SelectionTest, RunsOfOtherCodeOrMachinesAreGroupsOfTheirOwn) {
  for (const bool code : {true, false}) {
    auto runs = seeds([&](const std::string& id, const json& one) { return write(id, one); });
    for (size_t i = 0; i < runs.size(); ++i) {
      runs[i].config = runs[0].config;
      runs[i].config["machine"]["seed"] = i % 3;
      if (i >= 3) (code ? runs[i].code : runs[i].machine) = "another";
    }
    const Comparison comparison = compare(runs);
    ASSERT_EQ(comparison.groups.size(), 2);
    EXPECT_LT(comparison.groups[1].numbers[0].test->p, kSignificant);
    EXPECT_EQ(comparison.groups[1].numbers[3].sample.count, 2);
    EXPECT_EQ(has(to_text(comparison), "different machines: run3 ran with another"), !code);
  }
}

template <class Function>
std::string refusal_of(const Function& function) {
  try {
    function();
    return "";
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

TEST_F(SelectionTest, RunsAreChosenByTheirConfigAndSortedBestFirst) {
  const auto runs = seeds([&](const std::string& id, const json& one) { return write(id, one); });
  const auto ids = [](const std::vector<RunSummary>& chosen) {
    std::string text;
    for (const RunSummary& run : chosen) text += run.id.back();
    return text;
  };
  EXPECT_EQ(ids(where(runs, {"mask=full"})), "34");
  EXPECT_EQ(ids(where(runs, {"attention.mask!=full", "seed!=1"})), "02");
  const std::string flops = runs[0].config["budget"]["target_flops"].dump();
  EXPECT_EQ(ids(where(runs, {"target_flops=2e12"})), "01234") << flops;
  EXPECT_EQ(ids(where(runs, {"target_flops=" + flops, "seed=1.0"})), "1") << flops;
  EXPECT_EQ(ids(sorted_by(runs, "tokens_per_second")), "43210");
  EXPECT_EQ(ids(sorted_by(runs, "final_loss")), "03142");
  EXPECT_TRUE(has(refusal_of([&] { where(runs, {"msk=full"}); }), "no run has a key 'msk'"));
  EXPECT_TRUE(has(refusal_of([&] { where(runs, {"mask"}); }), "must be KEY=VALUE"));
  EXPECT_TRUE(has(refusal_of([&] { where(runs, {"mask=none"}); }), "no run is left by"));
  EXPECT_TRUE(has(refusal_of([&] { sorted_by(runs, "speed"); }), "tokens_per_second, "));
}

TEST_F(SelectionTest, ARuleFailsTheRunsThatBreakIt) {
  const auto runs = seeds([&](const std::string& id, const json& one) { return write(id, one); });
  const Comparison comparison = compare({runs[3], runs[4], runs[0]});
  const auto lines = failures(comparison, parse_failure_rule("tokens_per_second < 0.97"));
  ASSERT_EQ(lines.size(), 1);
  EXPECT_TRUE(has(lines[0], "run0: tokens_per_second is 0.4993 of run3's")) << lines[0];
  EXPECT_TRUE(failures(comparison, parse_failure_rule("final_loss > 1.01")).empty());
  auto stopped = runs[4];
  stopped.status = "failed";
  EXPECT_EQ(failures(compare({runs[3], stopped}), parse_failure_rule("final_loss > 1.01")),
            std::vector<std::string>{"run4: is not finished but failed"});
  EXPECT_EQ(failures(compare({stopped, runs[3]}), parse_failure_rule("final_loss > 1.01")).size(),
            1);
  json unknown = record("unknown");
  unknown["results"]["tokens_per_second"] = nullptr;
  const auto nothing = compare({runs[0], read_run(write("unknown", unknown))});
  EXPECT_EQ(failures(nothing, parse_failure_rule("tokens_per_second < 0.97")).size(), 1);
  for (const char* text : {"", "tokens_per_second", "tokens_per_second = 1", "final_loss < x",
                           "final_loss < 1 2", "final_loss < 1x", "final_loss < nan"}) {
    EXPECT_TRUE(has(refusal_of([&] { parse_failure_rule(text); }), "--fail-if must be")) << text;
  }
  EXPECT_TRUE(has(refusal_of([] { parse_failure_rule("speed < 1"); }), "is 'speed'"));
}

}  // namespace
}  // namespace nanoflex
