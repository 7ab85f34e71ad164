// All that a run's folder says of the run, for the pages made from it.
#pragma once

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace nanoflex {

/// What a page shows of a line of metrics.jsonl; NaN where the line has no number. A run may have
/// millions of them.
struct MetricsLine {
  double step = NAN, tokens = NAN, step_seconds = NAN;
  double loss = NAN, validation_loss = NAN, learning_rate = NAN, grad_norm = NAN;
  double tokens_per_second = NAN, tflops_per_second = NAN, memory_bytes = NAN;
};

struct FullRecord {
  nlohmann::json summary = {};            ///< summary.json
  std::vector<MetricsLine> metrics = {};  ///< metrics.jsonl
  nlohmann::json profile = {};            ///< profile.json; null: the run was not profiled
  struct Picture {
    std::string title, png;
  };
  std::vector<Picture> masks = {};
};

/// What of it can be read; what is missing or broken is left out.
FullRecord read_full_record(const std::filesystem::path& run);

/// The lines of a metrics.jsonl that are whole; none when there is no such file.
std::vector<MetricsLine> read_metrics(const std::filesystem::path& file);

/// What stands at "section.name"; null where there is nothing.
nlohmann::json field(const nlohmann::json& root, const std::string& path);

/// A value as people read it: texts without quotes, lists in one line; "–" for null.
std::string text_of(const nlohmann::json& value);

/// A number divided by `unit`, with its thousands set apart; "–" for what is no number.
std::string decimals_of(const nlohmann::json& value, double unit, int decimals);

/// The command that started the run, as a shell would take it.
std::string command_of(const nlohmann::json& summary);

}  // namespace nanoflex
