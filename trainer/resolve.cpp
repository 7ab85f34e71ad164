#include "trainer/resolve.h"

#include <cstdlib>

#include "trainer/machine.h"

namespace nanoflex {

std::filesystem::path source_dir() {
  const char* moved = std::getenv("NANOFLEX_ROOT");
  return moved ? moved : NANOFLEX_SOURCE_DIR;
}

Config fill_in(Config config, const Choices& choices) {
  config.device = choices.device.str();
  config.dtype = dtype_name(choices.dtype);
  config.threads = choices.threads;
  config.attention = choices.attention.backend;
  config.mask = flex::to_text(choices.attention.mask);
  config.score = flex::to_text(choices.attention.score);
  config.device_batch_size = config.device_batch_size.value_or(config.batch_size);
  for (auto* rate : {&config.matrix_lr, &config.embedding_lr, &config.unembedding_lr}) {
    *rate = rate->value_or(config.learning_rate);
  }
  for (auto* path : {&config.init_from, &config.val_data, &config.tokenizer, &config.data,
                     &config.attention_tensors}) {
    const bool is_path = !path->empty() && *path != "shakespeare";
    if (is_path) *path = std::filesystem::absolute(*path).lexically_normal().string();
  }
  return config;
}

Config resolve(const Config& config) {
  const at::Device device = choose_device(config.device);
  const at::ScalarType dtype = choose_dtype(config.dtype, device);
  const AttentionSetup attention = choose_attention(config, device, dtype);
  return fill_in(config, {.device = device,
                          .dtype = dtype,
                          .attention = attention,
                          .threads = set_threads(config.threads)});
}

}  // namespace nanoflex
