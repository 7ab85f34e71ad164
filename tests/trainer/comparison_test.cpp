#include "trainer/comparison.h"

#include <gtest/gtest.h>

#include <sstream>

#include "tests/trainer/run_records.h"
#include "tests/trainer/small_run.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

using ComparisonTest = RunRecordsTest;

TEST_F(ComparisonTest, EveryNumberHasItsRatioToTheFirstRunInEveryForm) {
  const auto comparison = compare_with_changed([](json& run) {
    run["attention"]["backend"] = "flex";
    run["results"] = {{"tokens_per_second", 2500},
                      {"tflops_per_second", 0.112},
                      {"peak_memory_bytes", 770000000},
                      {"final_loss", 5.2},
                      {"validation_loss", 21.0}};
  });
  const auto& numbers = comparison.rows[1].numbers;
  const std::vector<double> ratios = {2, 2, 0.5, 0.5, 2};
  for (size_t i = 0; i < ratios.size(); ++i) EXPECT_DOUBLE_EQ(*numbers[i].ratio, ratios[i]);

  const std::string text = to_text(comparison), markdown = to_markdown(comparison);
  for (const auto* cell : {"1,250 (1.00x)", "2,500 (2.00x)", "0.112 (2.00x)", "1,540.0 (1.00x)",
                           "770.0 (0.50x)", "5.2000 (0.500x)", "21.0000 (2.000x)"}) {
    EXPECT_TRUE(has(text, cell)) << cell << '\n' << text;
    EXPECT_TRUE(has(markdown, std::string("| ") + cell + " |")) << cell << '\n' << markdown;
  }
  const json parsed = json::parse(to_json(comparison));
  EXPECT_EQ(parsed["runs"][1]["attention"], "flex");
  EXPECT_EQ(parsed["runs"][1]["peak_memory_bytes"]["value"], 770000000);
  EXPECT_EQ(parsed["runs"][1]["validation_loss"]["ratio"], 2);
}

TEST_F(ComparisonTest, TheTextTableIsAligned) {
  json longer = record("a_much_longer_name");
  longer["results"]["tokens_per_second"] = 1234567;
  std::istringstream text(to_text(compare({read_run(write("a")), read_run(write("b", longer))})));
  std::vector<size_t> widths;
  for (std::string line; std::getline(text, line) && !line.empty();) widths.push_back(line.size());
  EXPECT_EQ(widths.size(), 3);
  for (const size_t width : widths) EXPECT_EQ(width, widths[0]);
}

// A run that was branched with another batch has paid two prices: what it spent is on record.
TEST_F(ComparisonTest, BudgetsAreComparedByWhatWasSpent) {
  for (const double spent : {22 * 92006252544.0, 11 * 92006252544.0}) {
    const Comparison comparison = compare_with_changed([&](json& run) {
      run["budget"] = {{"flops_per_step", 46003126272}, {"steps", 33}, {"flops", spent}};
    });
    EXPECT_EQ(comparison.warnings.empty(), spent > 1.5e12) << to_text(comparison);
  }
}

TEST_F(ComparisonTest, NullIsADashAndHasNoRatio) {
  const auto comparison = compare_with_changed([](json& run) {
    run["results"]["validation_loss"] = nullptr;
    run["results"]["tokens_per_second"] = 0;
  });
  EXPECT_FALSE(comparison.rows[1].numbers[4].value);
  EXPECT_FALSE(comparison.rows[1].numbers[4].ratio);
  EXPECT_TRUE(has(to_text(comparison), "  -\n"));
  EXPECT_TRUE(has(to_markdown(comparison), "| - |"));
  EXPECT_TRUE(json::parse(to_json(comparison))["runs"][1]["validation_loss"]["value"].is_null());

  // Nor has anything a ratio to zero or to nothing.
  const auto turned = compare({read_run(runs_ / "b"), read_run(runs_ / "a")});
  EXPECT_FALSE(turned.rows[1].numbers[0].ratio);
  EXPECT_FALSE(turned.rows[1].numbers[4].ratio);
  EXPECT_FALSE(has(to_text(turned), "inf"));
}

TEST_F(ComparisonTest, OneRunIsALineWithoutRatios) {
  const std::string text = to_text(compare({read_run(write("alone"))}));
  EXPECT_TRUE(has(text, "alone"));
  EXPECT_TRUE(has(text, "1,250"));
  EXPECT_FALSE(has(text, "x)"));
  EXPECT_FALSE(has(text, "config key"));
}

TEST_F(ComparisonTest, DifferingConfigKeysAreListedButNotTheRunId) {
  const auto comparison = compare_with_changed([](json& run) {
    run["config"]["attention"]["mask"] = "causal & document | window(4)";
    run["config"]["training"]["learning_rate"] = 6e-4;
  });
  ASSERT_EQ(comparison.differing_keys.size(), 2);
  EXPECT_EQ(comparison.differing_keys[0].key, "attention.mask");
  EXPECT_EQ(comparison.differing_keys[1].key, "training.learning_rate");
  EXPECT_FALSE(comparison.differing_keys[1].values[0]);
  const std::string text = to_text(comparison);
  EXPECT_TRUE(has(text, "attention.mask          causal  causal & document | window(4)\n"));
  EXPECT_TRUE(has(text, "training.learning_rate  -       0.0006\n"));
  EXPECT_TRUE(has(to_markdown(comparison),
                  "| attention.mask | causal | causal & document \\| window(4) |"));
  const json keys = json::parse(to_json(comparison))["differing_keys"];
  EXPECT_EQ(keys[1], json::parse(R"({"key": "training.learning_rate", "values": {"b": 0.0006}})"));

  EXPECT_TRUE(has(to_text(compare_with_changed([](json&) {})), "no config key differs"));
}

TEST_F(ComparisonTest, DifferentBudgetsAndModelsAreWarnedOfByName) {
  const auto comparison = compare_with_changed([](json& run) {
    run["config"]["model"]["n_layer"] = 2;
    run["config"]["budget"]["target_flops"] = 4e12;
    run["budget"]["steps"] = 44;
  });
  ASSERT_EQ(comparison.warnings.size(), 2);
  EXPECT_EQ(comparison.warnings[0],
            "different budgets: b has 4.048e+12 FLOPs (target 4e+12), "
            "a has 2.024e+12 FLOPs (target 2e+12)");
  EXPECT_EQ(comparison.warnings[1], "different models: b against a: model.n_layer 2 against 4");
  for (const auto& warning : comparison.warnings) {
    EXPECT_TRUE(has(to_text(comparison), "warning: " + warning + "\n"));
    EXPECT_TRUE(has(to_markdown(comparison), "**Warning:** " + warning + "\n"));
  }
  EXPECT_EQ(json::parse(to_json(comparison))["warnings"], json(comparison.warnings));
}

TEST_F(ComparisonTest, BudgetsDifferByTargetOrByFlopsButNotByAStepOfOvershoot) {
  const auto warnings = [&](auto change) { return compare_with_changed(change).warnings.size(); };
  // One target in larger steps: 14 * 150e9 overshoots 2e12 as 22 * 92e9 does, but differently.
  EXPECT_EQ(warnings([](json& run) {
              run["budget"] = {{"flops_per_step", 150e9}, {"steps", 14}};
            }),
            0);
  EXPECT_EQ(warnings([](json& run) { run["budget"]["steps"] = 21; }), 1);
  EXPECT_EQ(warnings([](json& run) { run["budget"]["steps"] = nullptr; }), 1);
  EXPECT_EQ(warnings([](json& run) { run["config"]["budget"]["target_flops"] = 2.001e12; }), 1);
  // A run of --max-steps 22 spends what the target's 22 steps spend.
  EXPECT_EQ(warnings([](json& run) { run["config"]["budget"]["target_flops"] = nullptr; }), 0);
}

TEST_F(ComparisonTest, UnfinishedRunsAreMarked) {
  const auto comparison = compare_with_changed([](json& run) { run["status"] = "interrupted"; });
  EXPECT_TRUE(has(to_text(comparison), "b [interrupted]"));
  EXPECT_TRUE(has(to_text(comparison), "warning: b is not finished but interrupted\n"));
  EXPECT_TRUE(has(to_markdown(comparison), "b \\[interrupted\\]"));
  EXPECT_EQ(json::parse(to_json(comparison))["runs"][1]["status"], "interrupted");
}

TEST_F(ComparisonTest, RunsOfOneIdAreToldApartByTheirPaths) {
  write("copy", record("a"));
  const std::string text = to_text(compare({read_run(write("a")), read_run(runs_ / "copy")}));
  EXPECT_TRUE(has(text, (runs_ / "a").string() + " "));
  EXPECT_TRUE(has(text, (runs_ / "copy").string() + " "));
}

TEST_F(ComparisonTest, BrokenRecordsAreNamedWithTheReasonAndSkipped) {
  json without_budget = record("no_budget"), foreign = record("foreign");
  without_budget.erase("budget");
  foreign["schema"] = 2;
  fs::create_directories(runs_ / "empty");
  std::ostringstream notes;
  const auto runs =
      read_runs({runs_ / "empty", write("good"), write("no_budget", without_budget),
                 write("foreign", foreign), write_text("cut", R"({"schema": 1, "run_)")},
                notes);
  ASSERT_EQ(runs.size(), 1);
  EXPECT_EQ(runs[0].id, "good");
  const auto file = [&](const char* id) { return (runs_ / id / "summary.json").string(); };
  EXPECT_TRUE(
      has(notes.str(), "skipped: [compare] " + file("empty") + ": there is no such file\n"));
  EXPECT_TRUE(has(notes.str(), file("no_budget") + ": has no budget\n"));
  EXPECT_TRUE(has(notes.str(),
                  file("foreign") + ": schema must be 1 (written by another version?), is 2\n"));
  EXPECT_TRUE(has(notes.str(), file("cut") + ": not valid JSON: parse error at line 1"));
  EXPECT_FALSE(has(notes.str(), "good"));

  try {
    read_runs({runs_ / "empty"}, notes);
    FAIL() << "nothing readable was accepted";
  } catch (const std::invalid_argument& error) {
    EXPECT_STREQ(error.what(), "[compare] none of the named runs has a readable record");
  }
}

TEST_F(ComparisonTest, EveryFieldIsCheckedForPresenceAndType) {
  const std::vector<std::string> fields = {"/schema",
                                           "/run_id",
                                           "/status",
                                           "/config",
                                           "/budget",
                                           "/budget/flops_per_step",
                                           "/budget/steps",
                                           "/attention",
                                           "/attention/backend",
                                           "/results",
                                           "/results/tokens_per_second",
                                           "/results/tflops_per_second",
                                           "/results/peak_memory_bytes",
                                           "/results/final_loss",
                                           "/results/validation_loss"};
  for (const auto& field : fields) {
    const json::json_pointer pointer(field);
    json wrong = record("wrong"), missing = record("missing");
    for (const json& value : {json(true), json::array({1}), json("")}) {
      wrong[pointer] = value;
      EXPECT_TRUE(has(refusal(write("wrong", wrong)), " must be ")) << field << value;
    }
    missing[pointer.parent_pointer()].erase(pointer.back());
    EXPECT_TRUE(has(refusal(write("missing", missing)), ": has no ")) << field;
  }
  json nulls = record("nulls");
  nulls["results"] = nullptr;
  EXPECT_TRUE(has(refusal(write("nulls", nulls)), ": results must be an object, is null"));
}

TEST_F(ComparisonTest, HostileFilesAreRefusedNotCrashedOn) {
  EXPECT_TRUE(has(refusal(write_text("empty", "")), "not valid JSON"));
  EXPECT_TRUE(has(refusal(write_text("scalar", "7")), "the record must be an object, is 7"));
  EXPECT_TRUE(has(refusal(write_text("nan", R"({"schema": NaN})")), "not valid JSON"));
  EXPECT_TRUE(has(refusal(write_text("huge", R"({"schema": 1e999})")), "not valid JSON"));
  EXPECT_TRUE(has(refusal(write_text("utf8", "{\"schema\": \"\xff\"}")), "not valid JSON"));
  EXPECT_TRUE(has(refusal(write_text("float", R"({"schema": 1.5})")), "is 1.5"));
  EXPECT_TRUE(
      has(refusal(write_text("wide", R"({"schema": 18446744073709551617})")), "schema must be 1"));
  EXPECT_TRUE(has(refusal(write_text("deep", std::string(1000000, '['))), "nested too deeply"));
  fs::create_directories(runs_ / "folder" / "summary.json");
  EXPECT_TRUE(has(refusal(runs_ / "folder"), "there is no such file"));
}

TEST_F(ComparisonTest, HostileValuesNeitherCrashNorReachTheTerminal) {
  const auto comparison = compare_with_changed([](json& run) {
    run["run_id"] = "b\n\x1b[2J\xc2\x9b";
    run["status"] = std::string("new\0line", 8);
    run["results"]["tokens_per_second"] = 1e308;
    run["results"]["tflops_per_second"] = -1e-300;
    run["results"]["peak_memory_bytes"] = 18446744073709551615u;
    run["config"] = {{"model", 3},
                     {"budget", {{"target_flops", "many"}}},
                     {"", json::array()},
                     {"key\x1b", std::string(100000, 'v')}};
  });
  const std::string text = to_text(comparison);
  EXPECT_TRUE(has(text, "b??[2J? [new?line]"));
  EXPECT_FALSE(has(text, "\x1b"));
  EXPECT_TRUE(has(text, "1e+308"));
  EXPECT_TRUE(has(text, "different models: b??[2J? against a: model 3 against -"));
  EXPECT_TRUE(text.size() < 5000);
  EXPECT_FALSE(has(to_markdown(comparison), "\x1b"));
  EXPECT_TRUE(json::accept(to_json(comparison)));
}

TEST_F(ComparisonTest, RunsAreFoundByPathByIdAndByGlob) {
  const fs::path a = write("a1"), b = write("a2"), c = write("c[1]");
  using Paths = std::vector<fs::path>;
  EXPECT_EQ(resolve_runs({b.string(), "a1"}, runs_), (Paths{b, a}));
  EXPECT_EQ(resolve_runs({(a / "summary.json").string()}, runs_), Paths{a});
  fs::create_directories(runs_ / "a_bench");  // which is no run
  EXPECT_EQ(resolve_runs({"a*"}, runs_), (Paths{a, b}));
  EXPECT_EQ(resolve_runs({"a[2-9]"}, runs_), Paths{b});
  EXPECT_EQ(resolve_runs({(runs_ / "a?").string()}, root_ / "elsewhere"), (Paths{a, b}));
  EXPECT_EQ(resolve_runs({(runs_ / "*" / "summary.json").string()}, runs_), (Paths{a, b, c}));
  EXPECT_EQ(resolve_runs({"c[1]"}, runs_), Paths{c});
  // The first run stays first, and none is counted twice.
  EXPECT_EQ(resolve_runs({"a2", "*", a.string() + "/"}, runs_), (Paths{b, a, c}));
}

TEST_F(ComparisonTest, AnUnknownRunNamesTheNearest) {
  EXPECT_TRUE(has(unresolved("x"), "holds no runs"));
  write("20260101_120000");
  write("20260102_180000");
  EXPECT_EQ(unresolved("20260102_12000"),
            "[compare] no run '20260102_12000': it is no run's folder, and " + runs_.string() +
                " has none of that name; the nearest is '20260101_120000'");
  EXPECT_TRUE(has(unresolved("quick*"), "no run matches 'quick*'"));
  EXPECT_TRUE(has(unresolved(""), "no run ''"));
  EXPECT_TRUE(has(unresolved(std::string(100000, 'x')), "has none of that name, the last is"));
}

TEST_F(ComparisonTest, ProfilesStandSideBySide) {
  const json profile = {{"seconds_per_step", 0.5},
                        {"launches_per_step", 3276.0},
                        {"parts", {{"head", 0.25}}},
                        {"queries_by_keys_tensor", nullptr},
                        {"fewer_operations", 429}};
  const Comparison comparison =
      compare_with_changed([&](json& changed) { changed["profile"] = profile; });
  const std::string text = to_text(comparison);
  EXPECT_TRUE(has(text, "profile of a step")) << text;
  EXPECT_TRUE(has(text, "ms of head")) << text;
  EXPECT_TRUE(has(text, "250.00")) << text;
  EXPECT_TRUE(has(text, "3,276")) << text;
  EXPECT_FALSE(has(to_text(compare({read_run(write("c"))})), "profile")) << "none was made";
}

TEST_F(ComparisonTest, AProfileOfAnotherShapeIsRefused) {
  json broken = record("d");
  broken["profile"] = {{"parts", 3}};
  EXPECT_TRUE(has(refusal(write("d", broken)), "profile.parts must be an object, is 3"));
}

}  // namespace
}  // namespace nanoflex
