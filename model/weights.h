#pragma once

#include <filesystem>

#include "model/gpt.h"

namespace nanoflex {

/// Writes the model's weights in fp32 under nanochat's names.
void save_weights(const Gpt& model, const std::filesystem::path& file);

/// Copies the weights of a safetensors file into the model. Throws std::invalid_argument that lists
/// every missing, unknown or misshapen tensor; the model is then unchanged.
void load_weights(Gpt& model, const std::filesystem::path& file);

}  // namespace nanoflex
