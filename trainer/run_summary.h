// Reads run records: what ./compare needs of runs/<id>/summary.json.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

namespace nanoflex {

// The version of summary.json that is written and read.
constexpr int64_t kSummarySchema = 1;

// What a comparison needs of a run's summary.json. A number that the record holds as null is empty.
struct RunSummary {
  std::string id;
  std::filesystem::path path;  // the run's folder
  std::string status;          // "finished", "interrupted", ...
  std::string backend;         // the attention backend that ran
  std::optional<double> tokens_per_second, tflops_per_second, peak_memory_bytes;
  std::optional<double> final_loss, validation_loss;
  std::optional<double> flops_per_step, flops;  // flops: of all steps
  nlohmann::json config;                        // nested by section, as config.yaml
  std::string code, machine;  // the commit; the processor or GPU, LibTorch and compiler; or ""
  nlohmann::json profile;     // as trainer/profiled_steps.h gives it; null when there is none
};

// One compared number: its name in summary.json's results, and how a table shows it.
struct Metric {
  const char* name;
  const char* title;
  std::optional<double> RunSummary::*value;
  double unit;  // a table shows value / unit
  int decimals, ratio_decimals;
  bool more_is_better;
  bool of_seed;  // the seed decides it: another run of the same seed says nothing new
};

inline constexpr std::array<Metric, 5> kMetrics = {{
    {"tokens_per_second", "tokens/s", &RunSummary::tokens_per_second, 1, 0, 2, true, false},
    {"tflops_per_second", "TFLOP/s", &RunSummary::tflops_per_second, 1, 3, 2, true, false},
    {"peak_memory_bytes", "peak MB", &RunSummary::peak_memory_bytes, 1e6, 1, 2, false, false},
    {"final_loss", "final loss", &RunSummary::final_loss, 1, 4, 3, false, true},
    {"validation_loss", "validation loss", &RunSummary::validation_loss, 1, 4, 3, false, true},
}};

// The folders that the arguments name, each once, in their order. An argument is a run's folder (or
// its summary.json), an id below runs_dir, or a glob over either. Throws std::invalid_argument,
// naming the nearest id, where nothing of that name is there.
std::vector<std::filesystem::path> resolve_runs(const std::vector<std::string>& arguments,
                                                const std::filesystem::path& runs_dir);

// runs/ below the current folder where there is one, else below the project's source folder.
std::filesystem::path default_runs_dir();

// The record in a run's folder. Throws std::invalid_argument, with the reason, for one that is
// missing, not JSON, of another schema, or lacks a field or has it in another type.
RunSummary read_run(const std::filesystem::path& folder);

// The readable records; each other one gets a line in `notes` that says why it is skipped.
// Throws std::invalid_argument where none is readable.
std::vector<RunSummary> read_runs(const std::vector<std::filesystem::path>& folders,
                                  std::ostream& notes);

}  // namespace nanoflex
