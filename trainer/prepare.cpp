#include "trainer/prepare.h"

#include <algorithm>
#include <stdexcept>

#include "model/weights.h"

namespace nanoflex {

namespace {

// A validation that was asked for by name must be possible; what was held out may be too short.
void require_validation_row(const Config& config, const data::Tokens& validation,
                            Progress& progress) {
  if (config.val_tokens == 0 || validation.size() > config.sequence_len) return;
  const std::string what = std::to_string(validation.size()) +
                           " tokens, fewer than a row of sequence_len " +
                           std::to_string(config.sequence_len) + " and its target";
  if (config.val_data.empty() && config.val_interval == 0) {
    return progress.say("validation: none, the held out text has " + what);
  }
  throw std::invalid_argument("[data] the validation data has " + what +
                              "; lower sequence_len, or give more");
}

}  // namespace

data::Dataset open_data(const Config& config, Progress& progress) {
  const int64_t largest = std::min<int64_t>(8192, config.vocab_size);
  data::Dataset dataset =
      data::open_dataset({.data = config.data,
                          .val_data = config.val_data,
                          .tokenizer = config.tokenizer,
                          .tokenizer_vocab_size = config.tokenizer_vocab_size.value_or(largest),
                          .vocab_size = config.vocab_size,
                          .bos_id = config.bos_id,
                          .text_dir = (source_dir() / ".deps" / "text").string(),
                          .cache_dir = (source_dir() / ".cache" / "tokens").string(),
                          .log = [&](const std::string& line) { progress.say(line); }});
  require_validation_row(config, *dataset.validation, progress);
  return dataset;
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
