#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/gpt.h"
#include "trainer/attention_setup.h"

namespace nanoflex {

struct GenerateOptions {
  int64_t tokens = 200;    ///< to write
  double temperature = 1;  ///< 0: always the likeliest token
  int64_t top_k = 0;       ///< draw from the k likeliest only; 0: from all
  uint64_t seed = 42;
  int64_t allowed_vocab = 0;  ///< draw from ids below this only; 0: from all
};

/// Continues `prompt` (at least one token), one token at a time with a key/value cache; `emit` gets
/// each. When the model's sequence is full, the later half of it is kept as context.
void generate(const Gpt& model, const AttentionSetup& attention, std::vector<int64_t> prompt,
              const GenerateOptions& options, const std::function<void(int64_t)>& emit);

}  // namespace nanoflex
