#include "trainer/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <stdexcept>

#include "attention/flex/parse.h"
#include "attention/nearest.h"
#include "data/utf8.h"
#include "model/gpt.h"
#include "trainer/run_summary.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::json;

template <class... Handlers>
struct Overloaded : Handlers... {
  using Handlers::operator()...;
};
template <class... Handlers>
Overloaded(Handlers...) -> Overloaded<Handlers...>;  // clang 14 does not deduce it

[[noreturn]] void reject_value(const std::string& where, const std::string& what) {
  throw std::invalid_argument("[config] " + where + ": " + what);
}

// The shortest text that reads back as the same number.
std::string number_text(double value) {
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  return {buffer, end};
}

template <class Number>
Number parse_number(const Key& key, const std::string& text, const std::string& where) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  constexpr bool kWhole = std::is_integral_v<Number>;
  if (error != std::errc() || end != text.data() + text.size() ||
      !std::isfinite(static_cast<double>(value))) {
    reject_value(where,
                 key.name + " must be a " + (kWhole ? "whole " : "") + "number, is '" + text + "'");
  }
  const auto as_double = static_cast<double>(value);
  if (as_double < key.min) {
    reject_value(where, key.name + " must be at least " + number_text(key.min) + ", is " + text);
  }
  if (as_double > key.max) {
    reject_value(where, key.name + " must be at most " + number_text(key.max) + ", is " + text);
  }
  return value;
}

std::string parse_text(const Key& key, const std::string& text, const std::string& where) {
  const auto& choices = key.choices;
  if (data::first_invalid_utf8(text) < text.size()) {  // which no record could hold
    reject_value(where, key.name + " must be UTF-8, is '" + printable(text) + "'");
  }
  const bool expression = key.name == "mask" || key.name == "score";  // which may have lines
  if (printable(text) != text && !expression) {
    reject_value(where,
                 key.name + " must hold no control characters, is '" + printable(text) + "'");
  }
  if (text.empty() && !key_text(Config{}, key).empty()) {
    reject_value(
        where, key.name + " must not be empty; leave it out for '" + key_text(Config{}, key) + "'");
  }
  if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end()) {
    reject_value(where, key.name + " must be one of " + join(choices) + ", is '" + text + "'");
  }
  // What reads tensors by name is judged later, with the tensors.
  const bool named = text.find('[') != std::string::npos;
  const bool mask = key.name == "mask";
  if (expression && !text.empty() && !(mask && text == "auto") && !named) {
    try {
      mask ? flex::parse_mask(text) : flex::parse_score(text);
    } catch (const std::invalid_argument& problem) {
      reject_value(where, problem.what());
    }
  }
  return text;
}

}  // namespace

void set_key(Config& config, const Key& key, const std::string& text, const std::string& where) {
  std::visit(
      Overloaded{
          [&](std::string Config::*field) { config.*field = parse_text(key, text, where); },
          [&](int64_t Config::*field) { config.*field = parse_number<int64_t>(key, text, where); },
          [&](double Config::*field) { config.*field = parse_number<double>(key, text, where); },
          [&]<class Number>(std::optional<Number> Config::*field) {
            const bool none = text == "null" || text == "~";
            config.*field =
                none ? std::nullopt : std::optional(parse_number<Number>(key, text, where));
          }},
      key.field);
}

json key_json(const Config& config, const Key& key) {
  return std::visit(Overloaded{[&](auto Config::*field) { return json(config.*field); },
                               [&]<class Number>(std::optional<Number> Config::*field) {
                                 return config.*field ? json(*(config.*field)) : json();
                               }},
                    key.field);
}

std::string key_text(const Config& config, const Key& key) {
  const json value = key_json(config, key);
  if (value.is_number_float()) return number_text(value.get<double>());
  return value.is_string() ? value.get<std::string>() : value.dump();
}

void check(const Config& config) {
  const auto model = [&] {
    return GptOptions{config.n_layer, config.n_head,       config.n_kv_head,
                      config.n_embd,  config.sequence_len, config.vocab_size};
  };
  check(model());
  if (model().head_dim() > 256) {
    throw std::invalid_argument("[model] n_embd / n_head must be at most 256, is " +
                                std::to_string(model().head_dim()) + "; raise n_head");
  }
  if (config.device_batch_size && config.batch_size % *config.device_batch_size != 0) {
    throw std::invalid_argument("[config] device_batch_size must divide batch_size " +
                                std::to_string(config.batch_size) + ", is " +
                                std::to_string(*config.device_batch_size));
  }
  if (!config.target_flops && !config.max_steps && !config.max_seconds) {
    throw std::invalid_argument(
        "[config] nothing ends the run: give target_flops, max_steps or max_seconds");
  }
  if (config.lr_warmdown_steps > 0 && !config.target_flops && !config.max_steps) {
    throw std::invalid_argument(
        "[config] lr_warmdown_steps needs an end in steps: give target_flops or max_steps");
  }
  if (config.val_interval > 0 && config.val_tokens == 0) {
    throw std::invalid_argument("[config] val_interval " + std::to_string(config.val_interval) +
                                " needs tokens to validate on, val_tokens is 0; raise it");
  }
  if (config.tokenizer_vocab_size > config.vocab_size) {  // an empty optional is less than all
    throw std::invalid_argument("[config] tokenizer_vocab_size must be at most vocab_size " +
                                std::to_string(config.vocab_size) + ", is " +
                                std::to_string(*config.tokenizer_vocab_size));
  }
}

nlohmann::ordered_json to_json(const Config& config) {
  auto sections = nlohmann::ordered_json::object();
  for (const Key& key : config_keys()) {
    sections[key.section][key.name] = key_json(config, key);
  }
  return sections;
}

}  // namespace nanoflex
