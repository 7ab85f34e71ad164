#include "trainer/command_line.h"

// A comma or a new line may stand in a value of --set; this is cxxopts' own switch for it.
#define CXXOPTS_VECTOR_DELIMITER '\0'
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cxxopts.hpp>
#include <filesystem>
#include <iostream>
#include <map>
#include <sstream>
#include <stdexcept>

#include "attention/nearest.h"
#include "trainer/out_of_memory.h"
#include "trainer/resolve.h"
#include "trainer/run_summary.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

std::vector<std::string> all_flags() {
  std::vector<std::string> flags = {"config",     "set",           "print-config", "help",
                                    "resume",     "allow-changes", "branch",       "quiet",
                                    "json-lines", "no-graph"};
  for (const Key& key : config_keys()) flags.push_back(key.flag());
  return flags;
}

cxxopts::Options make_options() {
  cxxopts::Options options("train", "Trains a GPT under a FLOPs budget and leaves a run record.\n");
  options.set_width(100);
  options.add_options("command")("config", "YAML file; else configs/baseline.yaml",
                                 cxxopts::value<std::string>(), "FILE")(
      "set", "any key: --set model.n_layer=2", cxxopts::value<std::vector<std::string>>(),
      "SECTION.KEY=VALUE")("print-config", "show the resolved config and stop")(
      "no-graph", "the same as --graph off")("quiet", "the same as --progress none")(
      "json-lines", "the same as --progress json")("help", "show this and stop");
  options.add_options("resume")(
      "resume", "go on with this run: id, folder, folder of a checkpoint, or auto: the last one",
      cxxopts::value<std::string>(),
      "RUN")("branch", "as a new run (--run-id); RUN stays as it is")(
      "allow-changes",
      "keys that may differ from RUN's, beside output and a budget that rates do not fall towards",
      cxxopts::value<std::string>(), "KEY,KEY");
  const Config defaults;
  for (const Key& key : config_keys()) {
    std::string help = key.help;
    if (!key.choices.empty()) help += " [" + join(key.choices, " | ") + "]";
    const std::string value = key_text(defaults, key);
    if (!value.empty()) help += " (default: " + value + ")";
    options.add_options(key.section)(key.flag(), help, cxxopts::value<std::string>(), "VALUE");
  }
  return options;
}

// cxxopts names the unknown flag; this adds the nearest one that exists.
void check_flags(const std::vector<std::string>& arguments) {
  const std::vector<std::string> flags = all_flags();
  for (const std::string& argument : arguments) {
    if (!argument.starts_with("--")) continue;
    const std::string flag = argument.substr(2, argument.find('=') - 2);
    if (std::find(flags.begin(), flags.end(), flag) == flags.end()) {
      const std::string close = nearest(flag, flags);
      throw std::invalid_argument("[train] unknown flag '--" + printable(flag) + "'" +
                                  (close.empty() ? ";" : "; did you mean '--" + close + "'?") +
                                  " --help lists the flags");
    }
  }
}

std::pair<const Key*, std::string> parse_setting(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) {
    throw std::invalid_argument("[train] --set must be section.key=value, is '" + text + "'");
  }
  return {&find_key(text.substr(0, equals), "--set"), text.substr(equals + 1)};
}

// The layer of the command line.
using Settings = std::vector<std::pair<const Key*, std::string>>;

void require_one_value_each(const Settings& settings) {
  std::map<std::string, std::string> values;
  for (const auto& [key, value] : settings) {
    const auto [first, fresh] = values.emplace(key->path(), value);
    if (fresh || first->second == value) continue;
    throw std::invalid_argument("[config] " + key->path() + " is given twice, as '" +
                                first->second + "' and as '" + value + "'; leave one out");
  }
}

void apply_flags(Config& config, const cxxopts::ParseResult& parsed) {
  Settings settings;
  if (parsed.count("set")) {
    for (const auto& text : parsed["set"].as<std::vector<std::string>>()) {
      settings.push_back(parse_setting(text));
    }
  }
  for (const Key& key : config_keys()) {
    if (!parsed.count(key.flag())) continue;
    settings.push_back({&key, parsed[key.flag()].as<std::string>()});
  }
  const auto given = [&](const char* flag) {
    return parsed.count(flag) > 0 && parsed[flag].as<bool>();
  };
  if (given("quiet") && given("json-lines")) {
    throw std::invalid_argument("[train] give --quiet or --json-lines, not both");
  }
  struct Short {
    const char *flag, *key, *value;
  };
  for (const Short& one : {Short{"quiet", "output.progress", "none"},
                           {"json-lines", "output.progress", "json"},
                           {"no-graph", "machine.graph", "off"}}) {
    if (given(one.flag)) settings.push_back({&find_key(one.key, "--set"), one.value});
  }
  require_one_value_each(settings);
  apply_settings(config, settings);
}

std::vector<std::string> split_keys(const std::string& text) {
  std::vector<std::string> keys;
  std::istringstream in(text);
  for (std::string key; std::getline(in, key, ',');) keys.push_back(key);
  return keys;
}

void parse_resume(TrainCommand& command, const cxxopts::ParseResult& parsed) {
  const auto settings = [&](Config& config) {
    if (parsed.count("config")) apply_yaml(config, parsed["config"].as<std::string>());
    apply_flags(config, parsed);
  };
  Config named;
  settings(named);
  command.resume = find_resume_point(parsed["resume"].as<std::string>(), named.runs_dir,
                                     parsed.count("branch") > 0 && parsed["branch"].as<bool>());
  std::vector<std::string> allowed;
  if (parsed.count("allow-changes")) {
    allowed = split_keys(parsed["allow-changes"].as<std::string>());
  }
  command.config = resumed_config(*command.resume, settings, allowed);
}

template <class Number>
std::optional<Number> number_of(const std::string& text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole ? std::optional(value) : std::nullopt;
}

// Text that users and files gave may be in it: it must not steer the terminal.
int fail(std::string text, int code) {
  std::string shown;
  for (size_t begin = 0; begin <= text.size();) {  // the picture of an expression has lines
    const size_t end = std::min(text.find('\n', begin), text.size());
    shown += (begin > 0 ? "\n" : "") + printable(text.substr(begin, end - begin));
    begin = end + 1;
  }
  std::cerr << "error: " << shown << std::endl;
  return code;
}

}  // namespace

TrainCommand parse_train_command(const std::vector<std::string>& arguments) try {
  check_flags(arguments);
  cxxopts::Options options = make_options();
  std::vector<const char*> argv = {"train"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  const auto parsed = options.parse(static_cast<int>(argv.size()), argv.data());
  if (!parsed.unmatched().empty()) {
    throw std::invalid_argument("[train] unexpected argument '" + parsed.unmatched().front() +
                                "'; every option begins with --");
  }
  TrainCommand command;
  if (parsed.count("help")) {
    command.print = options.help();
    return command;
  }
  if (parsed.count("resume")) {
    parse_resume(command, parsed);
  } else {
    for (const char* flag : {"branch", "allow-changes"}) {
      if (!parsed.count(flag)) continue;
      throw std::invalid_argument("[train] --" + std::string(flag) + " needs --resume RUN");
    }
    const std::string baseline = (source_dir() / "configs" / "baseline.yaml").string();
    apply_yaml(command.config,
               parsed.count("config") ? parsed["config"].as<std::string>() : baseline);
    apply_flags(command.config, parsed);
  }
  check(command.config);
  if (parsed.count("print-config")) command.print = to_yaml(resolve(command.config));
  return command;
} catch (const cxxopts::exceptions::exception& problem) {
  throw std::invalid_argument(std::string("[train] ") + problem.what() +
                              "; --help lists the flags");
}

int64_t whole_number(const std::string& part, const std::string& flag, const std::string& text,
                     int64_t least) {
  const auto value = number_of<int64_t>(text);
  const std::string what = "[" + part + "] --" + flag + " must be ";
  if (!value) throw std::invalid_argument(what + "a whole number, is '" + text + "'");
  if (*value >= least) return *value;
  throw std::invalid_argument(what + "at least " + std::to_string(least) + ", is " + text);
}

double real_number(const std::string& part, const std::string& flag, const std::string& text) {
  const auto value = number_of<double>(text);
  if (value && std::isfinite(*value)) return *value;
  throw std::invalid_argument("[" + part + "] --" + flag + " must be a number, is '" + text + "'");
}

int run_program(const std::function<int()>& body) try {
  return body();
} catch (const std::invalid_argument& problem) {
  return fail(problem.what(), 2);
} catch (const cxxopts::exceptions::exception& problem) {
  return fail(std::string("[flags] ") + problem.what() + "; see --help", 2);
} catch (const std::filesystem::filesystem_error& problem) {
  const std::string path = problem.path1().string();  // none where the next entry cannot be read
  return fail("[files] " + (path.empty() ? "" : path + ": ") + problem.code().message(), 2);
} catch (const std::exception& problem) {
  if (const auto shortage = memory_shortage(problem)) {
    return fail("[memory] " + *shortage + "; lower the batch, the length or the model", 2);
  }
  return fail(first_line(problem), 1);
}

}  // namespace nanoflex
