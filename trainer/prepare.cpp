#include "trainer/prepare.h"

#include <algorithm>

#include "model/weights.h"

namespace nanoflex {

data::Dataset open_data(const Config& config, Progress& progress) {
  const int64_t largest = std::min<int64_t>(8192, config.vocab_size);
  return data::open_dataset({.data = config.data,
                             .val_data = config.val_data,
                             .tokenizer = config.tokenizer,
                             .tokenizer_vocab_size = config.tokenizer_vocab_size.value_or(largest),
                             .vocab_size = config.vocab_size,
                             .bos_id = config.bos_id,
                             .text_dir = (source_dir() / ".deps" / "text").string(),
                             .cache_dir = (source_dir() / ".cache" / "tokens").string(),
                             .log = [&](const std::string& line) { progress.say(line); }});
}

Gpt make_model(const Config& config, AttentionSetup& attention, const Choices& choices,
               const std::optional<ResumePoint>& from) {
  Gpt model(gpt_options(config, attention), static_cast<uint64_t>(config.seed), choices.device,
            choices.dtype);
  attention.read_from(model);
  if (from) {
    load_weights(model, from->checkpoint / "model.safetensors");
  } else if (!config.init_from.empty()) {
    load_weights(model, config.init_from);
  }
  return model;
}

}  // namespace nanoflex
