#pragma once

#include <filesystem>

#include "model/durable.h"
#include "model/gpt.h"

namespace nanoflex {

/// Writes the model's weights in fp32 under nanochat's names, as write_safetensors() does.
FileSum save_weights(const Gpt& model, const std::filesystem::path& file);

/// Copies the weights of a safetensors file into the model. Throws std::invalid_argument that lists
/// every missing, unknown or misshapen tensor; the model is then unchanged.
void load_weights(Gpt& model, const std::filesystem::path& file);

/// Whether no weight is NaN or infinite.
bool finite_weights(const Gpt& model);

}  // namespace nanoflex
