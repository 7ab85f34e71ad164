#pragma once

#include <ATen/Functions.h>

#include <filesystem>

#include "trainer/attention_setup.h"
#include "trainer/config.h"

namespace nanoflex {

/// Where the project's own files lie: default text, caches, configs. Where it was built, unless
/// NANOFLEX_ROOT in the environment says that the binaries were taken elsewhere.
std::filesystem::path source_dir();

/// The config as a run on this machine would record it: every "auto" and inherited value filled in,
/// but what only the data tells (`bos_id`). Throws as train() does.
Config resolve(const Config& config);

/// What was chosen for a config.
struct Choices {
  at::Device device;
  at::ScalarType dtype;
  const AttentionSetup& attention;
  int threads;
};

/// The config with these choices in the place of "auto", so that its YAML repeats the run.
Config fill_in(Config config, const Choices& choices);

}  // namespace nanoflex
