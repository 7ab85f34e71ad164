#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "trainer/config.h"
#include "trainer/run_lock.h"

namespace nanoflex {

/// One line of metrics.jsonl.
struct StepMetrics {
  int64_t step = 0;  ///< from 1
  double loss = 0, learning_rate = 0, grad_norm = 0;
  int64_t tokens = 0;  ///< seen so far
  double step_seconds = 0, tokens_per_second = 0, tflops_per_second = 0;
  int64_t memory_bytes = 0;  ///< peak of live tensor bytes so far
  std::optional<double> validation_loss = {}, bits_per_byte = {};  ///< on the steps that validate
};

/// The line itself.
nlohmann::ordered_json to_json(const StepMetrics& metrics);

struct ClaimedFolder {
  std::string id;
  std::filesystem::path path;
};

/// Makes runs_dir/id, which must not be there. An empty id becomes YYYYMMDD_HHMMSS, with a suffix
/// if that is taken. Throws std::invalid_argument for an id in use or one that is no plain folder
/// name.
ClaimedFolder claim_folder(const std::filesystem::path& runs_dir, const std::string& id);

/// A run that goes on.
struct ExistingRun {
  std::filesystem::path path;
  std::string id;
  std::shared_ptr<const RunLock> lock;
  std::string metrics;  ///< what metrics.jsonl shall hold
};

/// A run's record on disk: runs/<id>/ with config.yaml, metrics.jsonl, summary.json, run.md,
/// report.html and checkpoint/.
class RunFolder {
 public:
  /// Makes the folder as claim_folder() does; its metrics begin with `metrics`.
  RunFolder(const std::filesystem::path& runs_dir, const std::string& id,
            const std::string& metrics = "");
  /// Opens the folder of a run that goes on.
  explicit RunFolder(const ExistingRun& run);

  const std::string& id() const { return id_; }
  const std::filesystem::path& path() const { return path_; }

  void write_config(const Config& config) const;
  void append(const StepMetrics& metrics);
  /// Returns once the metrics so far would outlive a power cut.
  void flush_metrics() const;
  /// Writes summary.json, and run.md and report.html made from it and the metrics.
  void write_summary(const nlohmann::ordered_json& summary) const;

 private:
  std::string id_;
  std::filesystem::path path_;
  std::shared_ptr<const RunLock> lock_;
  std::ofstream metrics_;
};

/// The lines of a metrics.jsonl up to that of `step`. Throws std::invalid_argument unless they are
/// those of the steps from 1 on.
std::string first_metrics(const std::filesystem::path& file, int64_t step);

/// Writes a whole file under a temporary name and renames it; `durable`: so that no power cut
/// leaves less than the old file or the new one. Throws std::invalid_argument on failure.
void write_file(const std::filesystem::path& file, const std::string& text, bool durable = false);

}  // namespace nanoflex
