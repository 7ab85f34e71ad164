#include "tests/trainer/small_run.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>

#include "trainer/command_line.h"

namespace nanoflex {

namespace fs = std::filesystem;
using nlohmann::json;

fs::path fixture(const std::string& name) {
  return source_dir() / "tests" / "fixtures" / "section_a" / name;
}

json read_json(const fs::path& file) {
  std::ifstream in(file);
  return json::parse(in);
}

fs::path fresh_folder() {
  struct Folders : std::vector<fs::path> {
    ~Folders() {
      std::error_code ignored;
      for (const fs::path& folder : *this) fs::remove_all(folder, ignored);
    }
  };
  static Folders folders;  // gone when the tests have ended
  folders.push_back(fs::path(testing::TempDir()) / ("nanoflex_runs_" + std::to_string(getpid()) +
                                                    "_" + std::to_string(folders.size())));
  fs::remove_all(folders.back());
  return folders.back();
}

// The model, data and rates of the Python reference's fixture.
Config reference_config() {
  const json reference = read_json(fixture("losses.json")).at("config");
  Config config;
  config.n_layer = reference.at("n_layer");
  config.n_head = reference.at("n_head");
  config.n_kv_head = reference.at("n_kv_head");
  config.n_embd = reference.at("n_embd");
  config.sequence_len = reference.at("sequence_len");
  config.vocab_size = reference.at("vocab_size");
  config.batch_size = reference.at("batch_size");
  config.learning_rate = reference.at("learning_rate");
  config.target_flops = std::nullopt;
  config.max_steps = reference.at("steps").get<int64_t>();
  config.init_from = fixture("model.safetensors").string();
  config.data = fixture("tokens.bin").string();
  config.attention = "vanilla";
  config.mask = "causal";
  config.dtype = "float32";
  config.device = "cpu";
  config.threads = 2;
  config.val_tokens = 256;
  config.runs_dir = fresh_folder().string();
  return config;
}

std::vector<json> metrics_of(const fs::path& run) {
  std::ifstream in(run / "metrics.jsonl");
  std::vector<json> metrics;
  for (std::string line; std::getline(in, line);) {
    json parsed = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (parsed.is_object()) metrics.push_back(std::move(parsed));
  }
  return metrics;
}

std::vector<double> losses(const fs::path& run) {
  std::vector<double> result;
  for (const json& line : metrics_of(run)) result.push_back(line.at("loss"));
  return result;
}

std::string rejection(const Config& config) {
  try {
    train(config, {"train"});
  } catch (const std::exception& error) {
    return error.what();
  }
  return "accepted";
}

// 8 steps with a checkpoint at 6, and one at the end.
std::jthread interrupt_after_three_steps(const Config& config, int signal) {
  const fs::path run = fs::path(config.runs_dir) / config.run_id;
  return std::jthread([=](const std::stop_token& stop) {
    while (!stop.stop_requested() && metrics_of(run).size() < 3)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (!stop.stop_requested()) kill(getpid(), signal);
  });
}

Config eight_steps() {
  Config config = reference_config();
  config.max_steps = 8;
  config.checkpoint_interval = 6;
  config.run_id = "run";
  return config;
}

// As `./train --resume RUN ARGUMENTS` does.
TrainResult resume(const fs::path& run, Arguments arguments) {
  arguments.insert(arguments.begin(), {"--resume", run.string()});
  const TrainCommand command = parse_train_command(arguments);
  return train(command.config, {"train"}, command.resume);
}

std::string refusal(const fs::path& run, const Arguments& arguments) {
  try {
    resume(run, arguments);
  } catch (const std::exception& problem) {
    return problem.what();
  }
  return "accepted";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string bytes(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Everything of a step but how long it took.
std::vector<json> steps(const fs::path& run) {
  std::vector<json> result = metrics_of(run);
  for (json& line : result) {
    for (const char* name :
         {"step_seconds", "tokens_per_second", "tflops_per_second", "memory_bytes"}) {
      line.erase(name);
    }
  }
  return result;
}

}  // namespace nanoflex
