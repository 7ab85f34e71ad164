// ./sample: writes text from a run's checkpoint.
#include <cxxopts.hpp>
#include <iostream>
#include <stdexcept>

#include "data/tokenizer.h"
#include "model/weights.h"
#include "trainer/command_line.h"
#include "trainer/generate.h"
#include "trainer/machine.h"

namespace {

namespace fs = std::filesystem;
using namespace nanoflex;

cxxopts::Options make_options() {
  cxxopts::Options options("sample", "Writes text from a run's checkpoint.\n");
  options.positional_help("RUN");
  options.add_options()("run", "a run's folder, or its id below runs/",
                        cxxopts::value<std::string>())(
      "prompt", "text to continue", cxxopts::value<std::string>()->default_value(""))(
      "tokens", "tokens to write", cxxopts::value<std::string>()->default_value("200"))(
      "temperature", "0: always the likeliest token",
      cxxopts::value<std::string>()->default_value("0.8"))(
      "top-k", "draw from the k likeliest only; 0: from all",
      cxxopts::value<std::string>()->default_value("50"))(
      "seed", "for the draws", cxxopts::value<std::string>()->default_value("42"))(
      "runs-dir", "folder that holds the runs",
      cxxopts::value<std::string>()->default_value("runs"))(
      "device", "auto, cpu, cuda or cuda:N", cxxopts::value<std::string>()->default_value("auto"))(
      "help", "show this and stop");
  options.parse_positional({"run"});
  return options;
}

fs::path find_run(const std::string& run, const fs::path& runs_dir) {
  for (const fs::path& folder : {fs::path(run), runs_dir / run}) {
    if (fs::exists(folder / "config.yaml")) return folder;
  }
  throw std::invalid_argument("[sample] no run '" + run + "' here or in " + runs_dir.string() +
                              "; a run is a folder with a config.yaml");
}

GenerateOptions generate_options(const cxxopts::ParseResult& flags) {
  const auto whole = [&](const char* name) {
    return whole_number("sample", name, flags[name].as<std::string>(), 0);
  };
  const double temperature =
      real_number("sample", "temperature", flags["temperature"].as<std::string>());
  if (temperature < 0) {
    throw std::invalid_argument("[sample] --temperature must be at least 0, is " +
                                flags["temperature"].as<std::string>());
  }
  return {.tokens = whole("tokens"),
          .temperature = temperature,
          .top_k = whole("top-k"),
          .seed = static_cast<uint64_t>(whole("seed"))};
}

// How much of the text later tokens cannot change: a character's first bytes decode to U+FFFD.
size_t settled(const std::string& text) {
  const std::string replacement = "\xEF\xBF\xBD";
  size_t end = text.size();
  while (end >= 3 && text.compare(end - 3, 3, replacement) == 0) end -= 3;
  return end;
}

int sample(const cxxopts::ParseResult& flags) {
  GenerateOptions options = generate_options(flags);
  const fs::path folder =
      find_run(flags["run"].as<std::string>(), flags["runs-dir"].as<std::string>());
  Config config;
  apply_yaml(config, folder / "config.yaml");
  check(config);
  const fs::path tokenizer_file = folder / "checkpoint" / "tokenizer.model";
  if (!fs::exists(folder / "checkpoint" / "model.safetensors")) {
    throw std::invalid_argument("[sample] run " + folder.string() +
                                " has no checkpoint yet; --checkpoint-interval makes them");
  }
  if (!fs::exists(tokenizer_file)) {
    throw std::invalid_argument("[sample] " + tokenizer_file.string() +
                                " is missing: the run was trained on shards without --tokenizer; "
                                "put the shards' tokenizer there");
  }
  const auto tokenizer = data::Tokenizer::load(tokenizer_file, config.vocab_size);
  const at::Device device = choose_device(flags["device"].as<std::string>());
  const at::ScalarType dtype = choose_dtype("auto", device);
  // Decoding asks more of a backend than training did (T != S): let the fastest that can answer.
  config.attention = "auto";
  AttentionSetup attention = choose_attention(config, device, dtype);
  Gpt model(gpt_options(config, attention), 0, device, dtype);
  load_weights(model, folder / "checkpoint" / "model.safetensors");
  attention.read_from(model);

  const std::string prompt = flags["prompt"].as<std::string>();
  std::vector<int64_t> tokens = {config.bos_id ? *config.bos_id : tokenizer->bos_id().value_or(0)};
  for (const int32_t token : tokenizer->encode(prompt)) tokens.push_back(token);
  std::vector<int32_t> written(tokens.begin() + 1, tokens.end());
  std::cout << prompt << std::flush;
  size_t shown = settled(tokenizer->decode(written));
  options.allowed_vocab = tokenizer->vocab_size();
  generate(model, attention, tokens, options, [&](int64_t token) {
    written.push_back(static_cast<int32_t>(token));
    const std::string text = tokenizer->decode(written);
    const size_t end = settled(text);
    if (end <= shown) return;
    std::cout << text.substr(shown, end - shown) << std::flush;
    shown = end;
  });
  const std::string all = tokenizer->decode(written);
  std::cout << all.substr(std::min(shown, all.size())) << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    cxxopts::Options options = make_options();
    const auto flags = options.parse(argc, argv);
    if (flags.count("help")) {
      std::cout << options.help();
      return 0;
    }
    if (!flags.unmatched().empty()) {
      throw std::invalid_argument("[sample] unexpected argument '" + flags.unmatched().front() +
                                  "'; put the prompt in quotes");
    }
    if (!flags.count("run")) throw std::invalid_argument("[sample] name a run: ./sample RUN");
    return sample(flags);
  });
}
