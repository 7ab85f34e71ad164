// Sets run records side by side: what ./compare prints.
#pragma once

#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "trainer/report/record.h"
#include "trainer/run_summary.h"
#include "trainer/statistics.h"

namespace nanoflex {

struct ComparedNumber {
  std::optional<double> value, ratio;  // ratio to the first run; empty where either is unknown
};

struct ComparisonRow {
  std::string label;  // the run's id, or its path where two runs share an id
  std::string path, status, backend;
  std::array<ComparedNumber, kMetrics.size()> numbers;  // in the order of kMetrics
  nlohmann::json profile = {};                          // of the run's summary; null: none
};

struct DifferingKey {
  std::string key;                                    // "section.name"
  std::vector<std::optional<nlohmann::json>> values;  // one a row; empty where a run lacks the key
};

// Runs that differ in nothing but their seed.
struct SeedGroup {
  std::string label;  // of its first run
  size_t seeds = 0;   // different ones
  struct Number {
    Sample sample;
    std::optional<double> ratio;    // of the mean to the first group's
    std::optional<WelchTest> test;  // against the first group; empty where it says nothing
  };
  std::array<Number, kMetrics.size()> numbers;  // in the order of kMetrics
};

struct Comparison {
  std::vector<ComparisonRow> rows;
  std::vector<SeedGroup> groups;  // empty where no two runs differ in their seed alone
  std::vector<DifferingKey>
      differing_keys;                 // sorted; output.run_id, which always differs, left out
  std::vector<std::string> warnings;  // budgets or models that differ, unfinished runs
};

// Everything relative to the first run.
Comparison compare(const std::vector<RunSummary>& runs);

std::string to_text(const Comparison& comparison);
std::string to_markdown(const Comparison& comparison);
std::string to_json(const Comparison& comparison);  // numbers in full, memory in bytes
// A page as report.html, with the runs' curves over each other; `metrics` are those of each row.
std::string to_html(const Comparison& comparison,
                    const std::vector<std::vector<MetricsLine>>& metrics);
// Writes that page; `runs` are those that were compared. Throws std::invalid_argument, and leaves
// what is on disk alone, when `file` cannot be a file.
void write_html(const std::filesystem::path& file, const Comparison& comparison,
                const std::vector<RunSummary>& runs);

}  // namespace nanoflex
