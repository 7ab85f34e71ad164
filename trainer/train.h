#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "trainer/config.h"
#include "trainer/resolve.h"
#include "trainer/resume.h"

namespace nanoflex {

struct TrainResult {
  std::string status;  ///< "finished" or "interrupted"
  std::filesystem::path folder;
};

/// Trains under the config's budget and leaves a run record. `command` is the argv to record. With
/// `from`, goes on where that checkpoint ends, in its run's folder or as a branch of it; config is
/// resumed_config()'s. Throws std::invalid_argument for what the user can mend, before any run
/// folder is made or changed, and std::runtime_error when the loss stops being finite or the disk
/// is full.
TrainResult train(const Config& config, const std::vector<std::string>& command,
                  const std::optional<ResumePoint>& from = std::nullopt);

}  // namespace nanoflex
