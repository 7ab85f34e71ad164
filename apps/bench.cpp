// ./bench WHAT: measures, and leaves the numbers in a run folder.
#include <cxxopts.hpp>
#include <iostream>
#include <stdexcept>

#include "evidence/attention_sweep.h"
#include "evidence/flex_bench.h"
#include "evidence/mask_bench.h"
#include "evidence/step_bench.h"
#include "trainer/command_line.h"
#include "trainer/machine.h"
#include "trainer/memory.h"
#include "trainer/run_folder.h"

namespace {

using namespace nanoflex;

constexpr const char *kAttention = "attention", *kFlex = "flex", *kMask = "mask", *kStep = "step";

cxxopts::Options make_options() {
  using cxxopts::value;
  cxxopts::Options options("bench",
                           "Measures attention beside plain tensors and ATen's SDPA, what "
                           "programmed masks and scores cost, preparing a mask, and training "
                           "steps.\n");
  options.positional_help("attention|flex|mask|step");
  const auto text = [](const char* otherwise) {
    return value<std::string>()->default_value(otherwise);
  };
  const auto number = [](const char* otherwise) {
    return value<int64_t>()->default_value(otherwise);
  };
  options.add_options()(
      "what",
      "attention: speed and memory over shapes; flex: what programs cost; mask: one block mask; "
      "step: whole training steps",
      value<std::string>())("threads", "CPU threads; 0: one a core", number("0"))(
      "repeat", "times that each is measured, taking turns", number("5"))(
      "run-id", "name of the record; else YYYYMMDD_HHMMSS", text(""))(
      "runs-dir", "folder that holds the records", text("runs"))("json", "print the rows as JSON")(
      "help", "show this and stop");
  options.add_options("attention, flex, step")(
      "quick", "sequences up to 4096 tokens, small batches; step: the baseline only")(
      "dtype", "all, float32 or bfloat16 (flex, step: auto is what the machine computes fast)",
      text("auto"))("device", "auto, cpu, cuda or cuda:N", text("auto"));
  options.add_options(kMask)("mask", "the mask as text (causal; with documents causal & document)",
                             value<std::string>())("length", "queries and keys", number("8192"))(
      "block-size", "queries and keys of a block, a multiple of 16", number("128"))(
      "documents", "pack documents of this mean length", number("0"))(
      "png", "draw the mask into this file", value<std::string>());
  options.add_options(kStep)("python", "a Python with torch, to time the same step there",
                             value<std::string>());
  options.parse_positional({"what"});
  return options;
}

// A flag that would do nothing is a mistake.
void require_own_flags(const cxxopts::ParseResult& flags, const std::string& what) {
  const std::vector<std::string> of_mask = {"mask", "length", "block-size", "documents", "png"};
  const std::vector<std::string> of_others = {"quick", "dtype", "device"}, of_step = {"python"};
  const auto refuse = [&](const std::vector<std::string>& names, const std::string& owner) {
    for (const std::string& name : names) {
      if (flags.count(name) == 0) continue;
      throw std::invalid_argument("[bench] --" + name + " is a flag of ./bench " + owner);
    }
  };
  if (what == kMask) refuse(of_others, "attention, flex and step");
  if (what != kMask) refuse(of_mask, kMask);
  if (what != kStep) refuse(of_step, kStep);
}

int64_t repeat_of(const cxxopts::ParseResult& flags) {
  const auto repeat = flags["repeat"].as<int64_t>();
  if (repeat < 1) {
    throw std::invalid_argument("[bench] --repeat must be at least 1, is " +
                                std::to_string(repeat));
  }
  return repeat;
}

ClaimedFolder folder_of(const cxxopts::ParseResult& flags) {
  return claim_folder(flags["runs-dir"].as<std::string>(), flags["run-id"].as<std::string>());
}

void show(const cxxopts::ParseResult& flags, const nlohmann::ordered_json& record,
          const std::string& report, const ClaimedFolder& folder) {
  std::cout << (flags.count("json") > 0 ? record.dump(2) + "\n" : report);
  std::cerr << "record: " << folder.path.string() << "\n";
}

std::string dtype_of(const cxxopts::ParseResult& flags) {
  const std::string dtype = flags["dtype"].as<std::string>();
  if (dtype == "auto" || dtype == "all" || dtype == "float32" || dtype == "bfloat16") return dtype;
  throw std::invalid_argument("[bench] --dtype must be all, float32 or bfloat16, is '" + dtype +
                              "'");
}

SweepOptions sweep_options(const cxxopts::ParseResult& flags) {
  SweepOptions options{.quick = flags.count("quick") > 0};
  const std::string dtype = dtype_of(flags);
  if (dtype != "all" && dtype != "auto") options.dtypes = {choose_dtype(dtype, at::kCPU)};
  options.device = choose_device(flags["device"].as<std::string>());
  options.repeat = repeat_of(flags);
  return options;
}

void measure_attention(const cxxopts::ParseResult& flags) {
  const SweepOptions options = sweep_options(flags);
  const ClaimedFolder folder = folder_of(flags);
  const auto sweep = sweep_attention(options);
  write_file(folder.path / "attention.json", sweep.dump(2) + "\n");
  write_file(folder.path / "attention.csv", sweep_csv(sweep));
  write_file(folder.path / "attention.md", sweep_markdown(sweep));
  for (const at::ScalarType dtype : options.dtypes) {
    const std::string name = dtype_name(dtype);
    write_file(folder.path / ("attention_" + name + ".svg"), sweep_chart(sweep, name));
  }
  show(flags, sweep, sweep_markdown(sweep), folder);
}

void measure_flex(const cxxopts::ParseResult& flags) {
  const at::Device device = choose_device(flags["device"].as<std::string>());
  const std::string dtype = dtype_of(flags);
  const FlexBenchOptions options = {.quick = flags.count("quick") > 0,
                                    .dtype = choose_dtype(dtype == "all" ? "auto" : dtype, device),
                                    .device = device,
                                    .repeat = repeat_of(flags)};
  const ClaimedFolder folder = folder_of(flags);
  const auto record = bench_flex(options);
  write_file(folder.path / "flex.json", record.dump(2) + "\n");
  write_file(folder.path / "flex.md", flex_markdown(record));
  show(flags, record, flex_markdown(record), folder);
}

void measure_step(const cxxopts::ParseResult& flags) {
  const std::string dtype = dtype_of(flags);
  const StepBenchOptions options = {
      .quick = flags.count("quick") > 0,
      .dtype = dtype == "all" ? "auto" : dtype,
      .device = choose_device(flags["device"].as<std::string>()),
      .repeat = repeat_of(flags),
      .python = flags.count("python") > 0 ? flags["python"].as<std::string>() : ""};
  const ClaimedFolder folder = folder_of(flags);
  const auto record = bench_step(options);
  write_file(folder.path / "step.json", record.dump(2) + "\n");
  write_file(folder.path / "step.md", step_markdown(record));
  show(flags, record, step_markdown(record), folder);
}

void measure_mask(const cxxopts::ParseResult& flags) {
  const MaskBenchOptions options = {
      .mask = flags.count("mask") > 0 ? flags["mask"].as<std::string>() : "",
      .length = flags["length"].as<int64_t>(),
      .block_size = flags["block-size"].as<int64_t>(),
      .documents = flags["documents"].as<int64_t>(),
      .repeat = repeat_of(flags)};
  const auto record = bench_mask(options);
  if (flags.count("png") > 0) write_file(flags["png"].as<std::string>(), mask_png(options));
  const ClaimedFolder folder = folder_of(flags);
  write_file(folder.path / "mask.json", record.dump(2) + "\n");
  show(flags, record, mask_report(options, record), folder);
}

int bench(const cxxopts::ParseResult& flags) {
  const std::string what = flags.count("what") > 0 ? flags["what"].as<std::string>() : "";
  if (what != kAttention && what != kFlex && what != kMask && what != kStep) {
    throw std::invalid_argument(
        "[bench] say what to measure: ./bench attention, flex, mask or step; is '" + what + "'");
  }
  require_own_flags(flags, what);
  set_threads(flags["threads"].as<int64_t>());
  track_cpu_memory();
  if (what == kMask) measure_mask(flags);
  if (what == kStep) measure_step(flags);
  if (what == kFlex) measure_flex(flags);
  if (what == kAttention) measure_attention(flags);
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
