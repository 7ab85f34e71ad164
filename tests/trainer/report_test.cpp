#include "trainer/report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>
#include <stdexcept>

#include "tests/trainer/report_record.h"
#include "tests/trainer/small_run.h"
#include "trainer/comparison.h"
#include "trainer/report/curves.h"
#include "trainer/report/html.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// The data that a page holds for its charts, as a browser finds it.
json embedded(const std::string& page) {
  const std::string begin = R"(<script type="application/json" id="runs">)";
  const size_t from = page.find(begin) + begin.size();
  return json::parse(page.substr(from, page.find("</script>", from) - from));
}

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++found;
  return found;
}

TEST(Html, TextIsNeverMarkup) {
  EXPECT_EQ(html_text("<b a=\"1\" c='2'>&"), "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;");
  EXPECT_EQ(html_text("a\nb\tc"), "a\nb\tc");
  EXPECT_EQ(html_text(std::string("\0\x1b\x7f", 3)), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(html_text("\xC3\xA4 \xFF"), "\xC3\xA4 \xEF\xBF\xBD");
}

TEST(Html, DataCannotEndItsScriptAndComesBackWhole) {
  const json value = {{"text", kHostile}, {"nan", std::nan("")}, {"number", 0.1}};
  const std::string text = html_json(value);
  for (const char* part : {"<", ">", "\xE2\x80\xA8"}) EXPECT_FALSE(has(text, part)) << part;
  const json back = json::parse(text);
  EXPECT_EQ(back["text"], kHostile);
  EXPECT_TRUE(back["nan"].is_null());
  EXPECT_EQ(back["number"], 0.1);
}

TEST(Html, PicturesAreBase64) {
  EXPECT_TRUE(has(html_picture("foob", "x"), "base64,Zm9vYg=="));
  EXPECT_TRUE(has(html_picture("fooba", "x"), "base64,Zm9vYmE="));
  EXPECT_TRUE(has(html_picture("\xFF\xFE\xFD", "x"), "base64,//79\""));
}

TEST(Report, ItsCurvesAreTheMetrics) {
  const FullRecord record = record_of(60);
  const json runs = embedded(html_report(record));
  ASSERT_EQ(runs.size(), 1);
  const json& curve = runs[0].at("curves").at(0);
  EXPECT_EQ(curve.at("bucket"), 1);
  ASSERT_EQ(curve.at("step").size(), record.metrics.size());
  for (size_t i = 0; i < record.metrics.size(); ++i) {
    const MetricsLine& line = record.metrics[i];
    EXPECT_EQ(curve.at("step")[i], line.step);
    EXPECT_EQ(curve.at("tokens")[i], line.tokens);
    const std::pair<const char*, double> columns[] = {{"loss", line.loss},
                                                      {"learning_rate", line.learning_rate},
                                                      {"grad_norm", line.grad_norm},
                                                      {"tokens_per_second", line.tokens_per_second},
                                                      {"tflops_per_second", line.tflops_per_second},
                                                      {"memory_bytes", line.memory_bytes}};
    for (const auto& [name, value] : columns) {
      EXPECT_EQ(curve.at("columns").at(name)[i], value) << name;
    }
  }
  const json& validation = runs[0].at("curves").at(1);
  EXPECT_EQ(validation.at("step"), json::array({60.0}));
  EXPECT_EQ(validation.at("columns").at("validation_loss"), json::array({9.7328}));
}

TEST(Report, WhatALineOfTheMetricsLacksIsNoNumber) {
  const fs::path file = fresh_folder();
  std::ofstream(file) << R"({"step": 7, "loss": 2.5, "tokens": 14, "memory_bytes": 3})"
                      << "\n"
                      << R"({"step": "soon", "loss": null, "deep": )" << std::string(200'000, '[')
                      << std::string(200'000, ']') << "}\n[1]\n\n"
                      << R"({"step": 9, "validation_loss": 3.5})"
                      << "\n"
                      << R"({"step": 10, "lo)";  // torn
  const auto metrics = read_metrics(file);
  ASSERT_EQ(metrics.size(), 3);
  EXPECT_EQ(metrics[0].step, 7);
  EXPECT_EQ(metrics[0].loss, 2.5);
  EXPECT_EQ(metrics[0].tokens, 14);
  EXPECT_EQ(metrics[0].memory_bytes, 3);
  for (const double none : {metrics[0].validation_loss, metrics[1].step, metrics[1].loss})
    EXPECT_TRUE(std::isnan(none));
  EXPECT_EQ(metrics[2].validation_loss, 3.5);
}

// Also where a run's settings changed: what was timed before is not of them.
TEST(Report, ShadesTheStepsThatTheTimingLeavesOut) {
  FullRecord record = record_of(60);
  EXPECT_EQ(embedded(html_report(record)).at(0).at("untimed_steps"), 5);
  record.summary["budget"]["unmeasured_steps"] = 8;
  record.summary["config"]["output"]["profile"] = 2;
  EXPECT_EQ(embedded(html_report(record)).at(0).at("untimed_steps"), 15);
}

TEST(Report, ALongRunKeepsItsSpikesAndSaysWhatAPointIs) {
  FullRecord record = record_of(100'001);
  record.metrics[70'001].loss = 99.0;
  record.metrics[80'000].loss = NAN;
  const std::string page = html_report(record);
  EXPECT_TRUE(page.size() < 2'000'000) << page.size();
  EXPECT_TRUE(has(page, "100,001 steps, 51 a point"));
  const json curve = embedded(page).at(0).at("curves").at(0);
  EXPECT_EQ(curve.at("from")[1], 52);
  EXPECT_EQ(curve.at("step")[1], 102);
  EXPECT_EQ(curve.at("step").back(), 100'001);
  EXPECT_EQ(curve.at("high").at("loss")[70'001 / 51], 99.0);
  EXPECT_EQ(curve.at("low").at("loss")[0], record.metrics[50].loss);
  double sum = 0;
  for (int step = 0; step < 51; ++step) sum += record.metrics[step].loss;
  EXPECT_TRUE(std::abs(curve.at("columns").at("loss")[0].get<double>() - sum / 51) < 1e-12);
}

TEST(Report, TextsFromARunAreShownAndNothingMore) {
  FullRecord record = record_of(3, kHostile);
  record.summary["status"] = kHostile;
  record.summary["error"] = kHostile;
  record.profile = {{"steps", 2},
                    {"parts", {{{"name", kHostile}, {"seconds", 0.5}, {"flops", 0}}}},
                    {"operations", {{{"name", kHostile}, {"seconds", 0.5}}}}};
  const std::string page = html_report(record), plain = html_report(record_of(3));
  EXPECT_EQ(count(page, "<script"), count(plain, "<script"));
  EXPECT_EQ(count(page, "<!--"), 0);
  EXPECT_TRUE(count(page, html_text(kHostile)) >= 10);
  EXPECT_EQ(embedded(page).at(0).at("label"), kHostile);
}

TEST(Report, ReachesForNothingOutside) {
  const std::string page = html_report(record_of(3));
  EXPECT_TRUE(has(page, "default-src 'none'"));
  for (const char* part : {"src=\"http", "href=\"http", "@import", "url(", "sourceMappingURL"})
    EXPECT_FALSE(has(page, part)) << part;
  EXPECT_TRUE(has(page, "Permission is hereby granted"));  // the chart library's licence
}

TEST(Report, WhatTheRecordLacksIsADashAndNoError) {
  for (const json& summary : {json(), json::object(), json{{"run_id", 3}, {"results", "none"}}})
    EXPECT_TRUE(has(html_report({.summary = summary}), "No step was taken")) << summary;
  FullRecord record = record_of(1);
  for (auto& [name, value] : record.summary["results"].items()) value = nullptr;
  record.summary["budget"]["measured_steps"] = 0;
  record.metrics = {{.step = 1, .tokens_per_second = 5}, {}};
  const std::string page = html_report(record);
  EXPECT_TRUE(has(page, "<b>\xE2\x80\x93</b>"));
  EXPECT_TRUE(has(page, "no step was timed"));
  EXPECT_FALSE(has(page, "data-columns=\"loss"));  // a chart without a value is left out
  EXPECT_TRUE(has(page, "data-columns=\"tokens_per_second"));
}

TEST(Report, AProfileIsInIt) {
  FullRecord record = record_of(3);
  EXPECT_FALSE(has(html_report(record), "slowest operations"));
  record.profile = {{"steps", 2},
                    {"seconds_per_step", 0.5},
                    {"limits", {{"flops_per_second", 1e11}, {"bytes_per_second", 1e10}}},
                    {"parts",
                     {{{"name", "head"}, {"seconds", 0.3}, {"flops", 1.5e10}},
                      {{"name", "rest"}, {"seconds", 0.1}, {"flops", 0}}}}};
  const std::string page = html_report(record);
  EXPECT_TRUE(has(page, "75.0 %"));
  EXPECT_TRUE(has(page, "50.0 (50 %)"));  // GFLOP/s, and the share of the machine's
  EXPECT_TRUE(has(page, "never held"));
}

TEST(ComparisonPage, HoldsBothRunsAndTheirDifferences) {
  RunSummary first;
  first.id = kHostile;
  first.status = "finished";
  first.backend = "flex";
  first.config = {{"model", {{"n_layer", 4}}}};
  first.tokens_per_second = 1000;
  RunSummary second = first;
  second.id = "b";
  second.config["model"]["n_layer"] = 6;
  second.tokens_per_second = 1500;
  const Comparison comparison = compare({first, second});
  const std::string page = to_html(comparison, {record_of(5).metrics, {}});
  EXPECT_TRUE(has(page, "1,500 (1.50x)"));
  EXPECT_TRUE(has(page, "model.n_layer"));
  EXPECT_TRUE(has(page, "different models: b against"));
  EXPECT_EQ(count(page, "<!--"), 0);
  const json runs = embedded(page);
  ASSERT_EQ(runs.size(), 2);
  EXPECT_EQ(runs[0].at("label"), kHostile);
  EXPECT_EQ(runs[0].at("curves").at(0).at("step").size(), 5);
  EXPECT_EQ(runs[1].at("steps"), 0);
}

TEST(ComparisonPage, ShowsMeansOverSeedsWithTheirTest) {
  std::vector<RunSummary> runs;
  for (const double speed : {1000, 1001, 1500, 1501}) {
    RunSummary run;
    run.id = "run" + std::to_string(runs.size());
    run.status = "finished";
    run.backend = speed < 1400 ? "flex" : "flash";
    run.config = {{"machine", {{"seed", runs.size()}}}};
    run.tokens_per_second = speed;
    runs.push_back(run);
  }
  const std::string page = to_html(compare(runs), std::vector<std::vector<MetricsLine>>(4));
  EXPECT_TRUE(has(page, "Welch"));
  EXPECT_TRUE(has(page, "1,000 +- 1"));
  EXPECT_TRUE(has(page, "(1.50x, p "));
}

TEST(Report, ARunLeavesItsMaskAndSaysWhyThereIsNoText) {
  Config config = reference_config();
  config.max_steps = 2;
  const auto folder = train(config, {"train"}).folder;
  EXPECT_TRUE(bytes(folder / "mask.png").starts_with("\x89PNG"));
  const std::string page = bytes(folder / "report.html");
  EXPECT_TRUE(has(page, html_picture(bytes(folder / "mask.png"),
                                     "What each query (down) sees of the keys (across)")));
  EXPECT_TRUE(has(page, "no tokenizer"));
  EXPECT_EQ(embedded(page).at(0).at("steps"), 2);
}

TEST(ComparisonPage, IsWrittenOrRefusedAndHarmsNothing) {
  Config config = reference_config();
  config.max_steps = 2;
  const fs::path run = train(config, {"train"}).folder, file = run.parent_path() / "compared.html";
  std::ostringstream warnings;
  const auto runs = read_runs({run}, warnings);
  write_html(file, compare(runs), runs);
  EXPECT_EQ(embedded(bytes(file)).at(0).at("steps"), 2);
  for (const fs::path& wrong : {run, run / "none" / "x.html", fs::path("")}) {
    try {
      write_html(wrong, compare(runs), runs);
      ADD_FAILURE() << wrong << " was accepted";
    } catch (const std::invalid_argument& refusal) {
      EXPECT_TRUE(has(refusal.what(), "--html must name a file in a folder that is there, is '" +
                                          wrong.string() + "'"));
    }
  }
  EXPECT_FALSE(fs::exists(run / "none"));
}

TEST(Report, LayersWithAWindowHaveAPictureOfTheirOwn) {
  Config config = reference_config();
  config.attention = "flex";
  config.window_pattern = "SL";
  config.window_size = 3;
  config.max_steps = 2;
  const fs::path folder = train(config, {"train"}).folder;
  const std::string all = bytes(folder / "mask.png"), window = bytes(folder / "mask_window.png");
  EXPECT_TRUE(window.starts_with("\x89PNG"));
  EXPECT_NE(window, all);
  EXPECT_TRUE(has(bytes(folder / "report.html"),
                  html_picture(window, "The same in the layers that have a window")));
}

TEST(Report, AFailedRunSaysWhy) {
  Config config = reference_config();
  config.learning_rate = 1e30;
  config.run_id = "failed";
  const std::string problem = rejection(config);
  const std::string page = bytes(std::filesystem::path(config.runs_dir) / "failed" / "report.html");
  EXPECT_TRUE(has(page, "class=\"status failed\""));
  EXPECT_TRUE(has(page, html_text(problem))) << problem;
  EXPECT_TRUE(has(page, "data:image/png"));
}

}  // namespace
}  // namespace nanoflex
