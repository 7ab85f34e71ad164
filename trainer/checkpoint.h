#pragma once

#include <ATen/Functions.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/gpt.h"
#include "trainer/config.h"

namespace nanoflex {

/// A checkpoint is a folder below a run's checkpoint/, step_00000020, with
///   model.safetensors     the weights
///   training.safetensors  what Optimizers::state() and random_state() give
///   config.yaml           the resolved config
///   state.json            CheckpointState, and the size and CRC-32C of every file, itself included
/// It is written under another name, flushed to disk and renamed: it is whole or not there. The
/// newest one's weights are checkpoint/model.safetensors as well, and the run's tokenizer lies
/// beside them.
struct CheckpointState {
  std::string run_id;
  int64_t step = 0;            ///< the last one taken
  double elapsed_seconds = 0;  ///< training so far
  nlohmann::json loader;       ///< data::Loader::position()
  nlohmann::json measurement;  ///< to_json(Measurement)
};

/// What a checkpoint holds beside its state.
struct CheckpointContents {
  const Gpt& model;
  std::map<std::string, at::Tensor> training;
  const Config& config;
  std::filesystem::path tokenizer;  ///< copied to checkpoint/tokenizer.model, once; or none
};

/// The steps that a run has checkpoints of, in order; whether they are good is not looked at.
std::vector<int64_t> checkpoint_steps(const std::filesystem::path& run);
std::filesystem::path checkpoint_folder(const std::filesystem::path& run, int64_t step);

/// Writes the checkpoint of state.step and removes all but the newest two. Throws
/// std::invalid_argument, naming the one that stands, when the disk refuses; nothing of the new one
/// is left then.
void write_checkpoint(const std::filesystem::path& run, const CheckpointState& state,
                      const CheckpointContents& contents);

/// Reads the state of a checkpoint's folder and holds every file against its sum. Throws
/// std::invalid_argument saying what is wrong, without naming the folder.
CheckpointState verify_checkpoint(const std::filesystem::path& folder);

/// Makes the checkpoint of `step` the newest: removes later ones and what a killed process left.
void rewind_checkpoints(const std::filesystem::path& run, int64_t step);

}  // namespace nanoflex
