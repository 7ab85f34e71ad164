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

/// When a step's loss is read: as soon as it is there, or once the next step has been queued, so
/// that a GPU is never idle meanwhile. Steps whose state or time is needed (a checkpoint, a
/// validation, a profile, the last) are waited for in both cases, and the record is the same.
enum class ReadBack { kAtOnce, kBehind, kByDevice };

/// Trains under the config's budget and leaves a run record. `command` is the argv to record. With
/// `from`, goes on where that checkpoint ends, in its run's folder or as a branch of it; config is
/// resumed_config()'s. Throws std::invalid_argument for what the user can mend, before any run
/// folder is made or changed but where memory or disk run out later, and std::runtime_error when
/// the loss stops being finite.
TrainResult train(const Config& config, const std::vector<std::string>& command,
                  const std::optional<ResumePoint>& from = std::nullopt,
                  ReadBack read_back = ReadBack::kByDevice);

}  // namespace nanoflex
