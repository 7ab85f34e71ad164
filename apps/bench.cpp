// ./bench WHAT: measures, and leaves the numbers in a run folder.
#include <cxxopts.hpp>
#include <iostream>
#include <stdexcept>

#include "evidence/attention_sweep.h"
#include "trainer/command_line.h"
#include "trainer/machine.h"
#include "trainer/memory.h"
#include "trainer/run_folder.h"

namespace {

using namespace nanoflex;

cxxopts::Options make_options() {
  cxxopts::Options options("bench", "Measures attention beside plain tensors and ATen's SDPA.\n");
  options.positional_help("attention");
  options.add_options()("what", "attention: speed and memory over shapes",
                        cxxopts::value<std::string>())("quick", "sequences up to 4096 tokens")(
      "dtype", "all, float32 or bfloat16", cxxopts::value<std::string>()->default_value("all"))(
      "device", "auto, cpu, cuda or cuda:N", cxxopts::value<std::string>()->default_value("auto"))(
      "threads", "CPU threads; 0: one a core", cxxopts::value<int64_t>()->default_value("0"))(
      "repeat", "times that each is measured, taking turns",
      cxxopts::value<int64_t>()->default_value("5"))(
      "run-id", "name of the record; else YYYYMMDD_HHMMSS", cxxopts::value<std::string>())(
      "runs-dir", "folder that holds the records",
      cxxopts::value<std::string>()->default_value("runs"))("json", "print the rows as JSON")(
      "help", "show this and stop");
  options.parse_positional({"what"});
  return options;
}

SweepOptions sweep_options(const cxxopts::ParseResult& flags) {
  SweepOptions options{.quick = flags.count("quick") > 0};
  const std::string dtype = flags["dtype"].as<std::string>();
  if (dtype != "all" && dtype != "float32" && dtype != "bfloat16") {
    throw std::invalid_argument("[bench] --dtype must be all, float32 or bfloat16, is '" + dtype +
                                "'");
  }
  if (dtype != "all") options.dtypes = {choose_dtype(dtype, at::kCPU)};
  options.device = choose_device(flags["device"].as<std::string>());
  options.repeat = flags["repeat"].as<int64_t>();
  if (options.repeat < 1) {
    throw std::invalid_argument("[bench] --repeat must be at least 1, is " +
                                std::to_string(options.repeat));
  }
  return options;
}

int bench(const cxxopts::ParseResult& flags) {
  const std::string what = flags.count("what") ? flags["what"].as<std::string>() : "";
  if (what != "attention") {
    throw std::invalid_argument("[bench] say what to measure: ./bench attention; is '" + what +
                                "'");
  }
  const SweepOptions options = sweep_options(flags);
  set_threads(flags["threads"].as<int64_t>());
  track_cpu_memory();
  const ClaimedFolder folder =
      claim_folder(flags["runs-dir"].as<std::string>(),
                   flags.count("run-id") ? flags["run-id"].as<std::string>() : "");
  const auto sweep = sweep_attention(options);
  write_file(folder.path / "attention.json", sweep.dump(2) + "\n");
  write_file(folder.path / "attention.csv", sweep_csv(sweep));
  write_file(folder.path / "attention.md", sweep_markdown(sweep));
  for (const at::ScalarType dtype : options.dtypes) {
    const std::string name = dtype_name(dtype);
    write_file(folder.path / ("attention_" + name + ".svg"), sweep_chart(sweep, name));
  }
  std::cout << (flags.count("json") ? sweep.dump(2) + "\n" : sweep_markdown(sweep));
  std::cerr << "record: " << folder.path.string() << "\n";
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
      throw std::invalid_argument("[bench] unexpected argument '" + flags.unmatched().front() +
                                  "'");
    }
    return bench(flags);
  });
}
