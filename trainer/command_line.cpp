#include "trainer/command_line.h"

// A comma may stand in a value of --set; this is cxxopts' own switch for it.
#define CXXOPTS_VECTOR_DELIMITER '\n'
#include <c10/util/Exception.h>

#include <algorithm>
#include <cxxopts.hpp>
#include <iostream>
#include <new>
#include <sstream>
#include <stdexcept>

#include "attention/nearest.h"
#include "trainer/resolve.h"

namespace nanoflex {
namespace {

std::vector<std::string> all_flags() {
  std::vector<std::string> flags = {"config", "set",    "print-config",
                                    "help",   "resume", "allow-changes",
                                    "branch", "quiet",  "json-lines"};
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
      "quiet", "the same as --progress none")("json-lines", "the same as --progress json")(
      "help", "show this and stop");
  options.add_options("resume")(
      "resume", "go on with this run: id, folder, folder of a checkpoint, or auto: the last one",
      cxxopts::value<std::string>(),
      "RUN")("branch", "as a new run (--run-id); RUN stays as it is")(
      "allow-changes", "keys that may differ from RUN's, beside budget and output",
      cxxopts::value<std::string>(), "KEY,KEY");
  const Config defaults;
  for (const Key& key : config_keys()) {
    std::string help = key.help;
    if (!key.choices.empty()) {
      std::string list;
      for (const std::string& choice : key.choices) list += (list.empty() ? "" : " | ") + choice;
      help += " [" + list + "]";
    }
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
      throw std::invalid_argument("[train] unknown flag '--" + flag + "'" +
                                  (close.empty() ? "" : "; did you mean '--" + close + "'?") +
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
void apply_flags(Config& config, const cxxopts::ParseResult& parsed) {
  std::vector<std::pair<const Key*, std::string>> settings;
  if (parsed.count("set")) {
    for (const auto& text : parsed["set"].as<std::vector<std::string>>()) {
      settings.push_back(parse_setting(text));
    }
  }
  for (const Key& key : config_keys()) {
    if (!parsed.count(key.flag())) continue;
    settings.push_back({&key, parsed[key.flag()].as<std::string>()});
  }
  if (parsed.count("quiet") && parsed.count("json-lines")) {
    throw std::invalid_argument("[train] give --quiet or --json-lines, not both");
  }
  for (const auto& [flag, style] : {std::pair{"quiet", "none"}, {"json-lines", "json"}}) {
    if (parsed.count(flag)) settings.push_back({&find_key("output.progress", "--set"), style});
  }
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
                                     parsed.count("branch") > 0);
  std::vector<std::string> allowed;
  if (parsed.count("allow-changes")) {
    allowed = split_keys(parsed["allow-changes"].as<std::string>());
  }
  command.config = resumed_config(*command.resume, settings, allowed);
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
  throw std::invalid_argument(std::string("[train] ") + problem.what());
}

int run_program(const std::function<int()>& body) try {
  return body();
} catch (const std::invalid_argument& problem) {
  std::cerr << "error: " << problem.what() << std::endl;
  return 2;
} catch (const cxxopts::exceptions::exception& problem) {
  std::cerr << "error: [flags] " << problem.what() << "; see --help" << std::endl;
  return 2;
} catch (const std::bad_alloc&) {
  std::cerr << "error: out of memory; lower --device-batch-size or the model" << std::endl;
  return 2;
} catch (const c10::Error& problem) {
  // LibTorch's messages go on with a stack; its first line says what was wrong.
  const std::string text = problem.what_without_backtrace();
  const bool memory = text.find("memory") != std::string::npos;
  std::cerr << "error: [torch] " << text.substr(0, text.find('\n'))
            << (memory ? "; lower --device-batch-size or the model" : "") << std::endl;
  return memory ? 2 : 1;
} catch (const std::exception& problem) {
  std::cerr << "error: " << problem.what() << std::endl;
  return 1;
}

}  // namespace nanoflex
