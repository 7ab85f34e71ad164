#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "trainer/config.h"

namespace nanoflex {

/// Where the project's own files lie: default text, caches, configs.
std::filesystem::path source_dir();

/// The config as a run on this machine would record it: every "auto" and inherited value filled in,
/// but what only the data tells (`bos_id`). Throws as train() does.
Config resolve(const Config& config);

struct TrainResult {
  std::string status;  ///< "finished" or "interrupted"
  std::filesystem::path folder;
};

/// Trains under the config's budget and leaves a run record. `command` is the argv to record.
/// Throws std::invalid_argument for what the user can mend, before any run folder is made, and
/// std::runtime_error when the loss stops being finite.
TrainResult train(const Config& config, const std::vector<std::string>& command);

}  // namespace nanoflex
