#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "trainer/budget.h"
#include "trainer/checkpoint.h"
#include "trainer/config.h"
#include "trainer/run_lock.h"

namespace nanoflex {

/// A good checkpoint that a run goes on from.
struct ResumePoint {
  std::filesystem::path run, checkpoint;  ///< folders
  CheckpointState state;
  nlohmann::json summary;               ///< the run's summary.json; null when it cannot be read
  bool branch = false;                  ///< as a new run, this one left as it is
  std::shared_ptr<const RunLock> lock;  ///< of the run; none for a branch

  std::string status() const { return summary.is_object() ? summary.at("status") : ""; }
};

/// `run`: a run's folder, the folder of one of its checkpoints, an id below runs_dir, or "auto" for
/// the one last trained of those below runs_dir that have not finished and are not running. Throws
/// std::invalid_argument when there is none, when another process writes to it, and for a
/// checkpoint that is damaged or another run's, naming the good one before it.
ResumePoint find_resume_point(const std::string& run, const std::filesystem::path& runs_dir,
                              bool branch);

/// The checkpoint's config with `settings` applied. Throws std::invalid_argument naming the keys
/// that would change, unless `allowed` names them or they cannot change what is learned until the
/// budget's end (intervals of output, and the budget itself, unless rates fall towards its end).
Config resumed_config(const ResumePoint& point, const std::function<void(Config&)>& settings,
                      const std::vector<std::string>& allowed);

/// Whether what the run has measured says nothing of its steps from here on: of a branch, and where
/// `config` is not the checkpoint's in more than budget and output.
bool measures_anew(const ResumePoint& point, const Config& config);

/// Throws std::invalid_argument when the budget pays for no step after the checkpoint. That of a
/// run that was stopped between its last checkpoint and the end of its record is let pass.
void check_budget_left(const ResumePoint& point, const Budget& budget);

/// Notes in a summary of begin_summary() where the run comes from: `resumed`, the steps at which it
/// was taken up again, or a branch's `parent`. A run that goes on keeps its first command.
void describe_origin(nlohmann::ordered_json& summary, const ResumePoint& point);

}  // namespace nanoflex
