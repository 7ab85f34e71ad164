#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace nanoflex {

/// Everything that decides a run. The same names are YAML keys (`n_layer`, in their section) and
/// flags
/// (`--n-layer`); trainer/config_keys.cpp says what each means. Defaults: the fixed-FLOPs baseline.
struct Config {
  // model
  int64_t n_layer = 4, n_head = 4, n_kv_head = 4, n_embd = 128;
  int64_t sequence_len = 256, vocab_size = 50304;
  std::string init_from;
  // attention
  std::string attention = "auto", mask = "auto", score, window_pattern;
  std::optional<int64_t> window_size;
  std::string learned_tensors, attention_tensors;
  // data
  std::string data = "shakespeare", val_data, tokenizer, packing = "stream";
  std::optional<int64_t> tokenizer_vocab_size, bos_id;
  // training
  int64_t batch_size = 8;
  std::optional<int64_t> device_batch_size;
  double learning_rate = 6e-4;
  std::optional<double> matrix_lr, embedding_lr, unembedding_lr;
  int64_t lr_warmup_steps = 0, lr_warmdown_steps = 0;
  double grad_clip = 0, z_loss = 0;
  // budget
  std::optional<double> target_flops = 2e12;
  std::optional<int64_t> max_steps;
  std::optional<double> max_seconds;
  int64_t warmup_steps = 5;
  // evaluation
  int64_t val_interval = 0, val_tokens = 16384;
  // machine
  std::string device = "auto", dtype = "auto", tf32 = "off", graph = "on";
  int64_t threads = 0, seed = 42;
  // output
  std::string run_id, runs_dir = "runs";
  int64_t log_interval = 1, checkpoint_interval = 0, profile = 0;
  std::string progress = "text";
};

/// A field of Config, by its type.
using Field = std::variant<int64_t Config::*, double Config::*, std::string Config::*,
                           std::optional<int64_t> Config::*, std::optional<double> Config::*>;

/// One key: its place, meaning and range. Adding a key is a field above and a row in the table.
struct Key {
  std::string section, name;
  Field field;
  std::string help;
  double min = -1e300, max = 1e300;       ///< for numbers, both allowed
  std::vector<std::string> choices = {};  ///< for texts; empty: any

  std::string flag() const;  ///< n_layer -> n-layer
  std::string path() const { return section + "." + name; }
};
const std::vector<Key>& config_keys();

/// Sets a key from text. `where` ("configs/a.yaml:3", "--n-layer") leads the message of the
/// std::invalid_argument thrown for a wrong type or an impossible value.
void set_key(Config& config, const Key& key, const std::string& text, const std::string& where);
/// The key's value as text; "null" when it has none.
std::string key_text(const Config& config, const Key& key);
/// The key's value as JSON.
nlohmann::json key_json(const Config& config, const Key& key);

/// Layers are applied in order: defaults < file < command line. A layer that names any of
/// target_flops, max_steps and max_seconds replaces those of the layers below it, and so does one
/// that names learning_rate with the rates of the three groups. Throws std::invalid_argument naming
/// file, line, key and the nearest valid name.
void apply_yaml(Config& config, const std::filesystem::path& file);
void apply_settings(Config& config,
                    const std::vector<std::pair<const Key*, std::string>>& settings);

/// Finds a key by `section.name`; throws with the nearest valid one.
const Key& find_key(const std::string& path, const std::string& where);

/// Refuses values that contradict each other, before any work.
void check(const Config& config);

/// YAML by section, with each key's meaning beside it; reading it back gives the same Config.
std::string to_yaml(const Config& config);
/// {section: {name: value}}
nlohmann::ordered_json to_json(const Config& config);

}  // namespace nanoflex
