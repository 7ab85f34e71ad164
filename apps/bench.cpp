// ./bench WHAT: measures, and leaves the numbers in a run folder.
#include <algorithm>
#include <chrono>
#include <cxxopts.hpp>
#include <iostream>
#include <stdexcept>

#include "apps/bench_flags.h"
#include "attention/nearest.h"
#include "evidence/attention_sweep.h"
#include "evidence/baseline_bench.h"
#include "evidence/flex_bench.h"
#include "evidence/forward_bench.h"
#include "evidence/guide_bench.h"
#include "evidence/lab_bench.h"
#include "evidence/mask_bench.h"
#include "evidence/passes.h"
#include "evidence/step_bench.h"
#include "trainer/command_line.h"
#include "trainer/machine.h"
#include "trainer/memory.h"
#include "trainer/resolve.h"
#include "trainer/run_folder.h"
#include "trainer/text.h"

namespace {

using namespace nanoflex;
namespace fs = std::filesystem;

// What one bench leaves: NAME.json, NAME.md and further files by name.
struct Output {
  nlohmann::ordered_json record;
  std::string report;
  std::map<std::string, std::string> files = {};
};

// The sizes of a bench with what the command line says of the rest.
template <class Options>
Options as_told(Options options, const Flags& flags) {
  options.dtype = flags.dtype();
  options.device = flags.device();
  options.repeat = flags.repeat();
  return options;
}

// An interpreter with torch; its peers run on the CPU.
std::string python_of(const Flags& flags) {
  const std::string python = flags.text("python");
  if (!python.empty() && !flags.device().is_cpu()) {
    throw std::invalid_argument("[bench] --python times PyTorch on the CPU, but the device is " +
                                flags.device().str() + "; add --device cpu");
  }
  return python;
}

Output measure_attention(const Flags& flags, const fs::path&) {
  SweepOptions options{.quick = flags.quick(), .device = flags.device(), .repeat = flags.repeat()};
  if (options.quick) options.longest = flags.all() ? 1024 : 4096;
  const bool both = flags.dtype_name() == "all" ||
                    (flags.dtype_name() == "auto" && !(flags.all() && flags.quick()));
  if (!both) options.dtypes = {flags.dtype()};
  const auto sweep = sweep_attention(options);
  Output output{sweep, sweep_markdown(sweep), {{"attention.csv", sweep_csv(sweep)}}};
  for (const at::ScalarType dtype : options.dtypes) {
    output.files.merge(sweep_charts(sweep, dtype_name(dtype)));
  }
  return output;
}

Output measure_baseline(const Flags& flags, const fs::path& folder) {
  BaselineOptions options = baseline_options(flags.quick());
  options.config.device = flags.device().str();
  options.config.dtype = flags.one_dtype_name();
  options.config.threads = flags.threads();
  options.repeat = flags.has("repeat") ? flags.repeat() : 1;
  options.runs_dir = folder / "runs";
  options.python = python_of(flags);
  options.program = source_dir() / "train";
  const auto record = bench_baseline(options);
  return {record, baseline_markdown(record), {{"baseline.svg", baseline_chart(record)}}};
}

Output measure_flex(const Flags& flags, const fs::path&) {
  const FlexBenchOptions options = {.quick = flags.quick(), .python = python_of(flags)};
  const auto record = bench_flex(as_told(options, flags));
  return {record, flex_markdown(record), {{"flex.svg", flex_chart(record)}}};
}

Output measure_forward(const Flags& flags, const fs::path&) {
  const auto record = bench_forward(as_told(forward_options(flags.quick()), flags));
  return {record, forward_markdown(record), {{"forward.svg", forward_chart(record)}}};
}

Output measure_guide(const Flags& flags, const fs::path&) {
  const auto record = bench_guide(as_told(guide_options(flags.quick()), flags));
  return {record, guide_markdown(record), {{"guide.svg", guide_chart(record)}}};
}

Output measure_lab(const Flags& flags, const fs::path&) {
  LabOptions options = as_told(lab_options(flags.quick()), flags);
  options.batch = flags.number("batch", options.batch);
  options.heads = flags.number("heads", options.heads);
  options.seq_len = flags.number("seq-len", options.seq_len);
  options.head_dim = flags.number("head-dim", options.head_dim);
  options.block_size = flags.number("block-size", options.block_size);
  options.doc_span = flags.number("doc-span", options.doc_span);
  const auto record = bench_lab(options);
  return {record, lab_markdown(record), {{"lab.svg", lab_chart(record)}}};
}

Output measure_mask(const Flags& flags, const fs::path&) {
  MaskBenchOptions options{.mask = flags.text("mask"), .repeat = flags.repeat()};
  options.length = flags.number("length", options.length);
  options.block_size = flags.number("block-size", options.block_size);
  options.documents = flags.number("documents", options.documents);
  const auto record = bench_mask(options);
  if (flags.has("png")) write_file(flags.text("png"), mask_png(options));
  return {record, mask_report(options, record), {{"mask.svg", mask_chart(options)}}};
}

Output measure_step(const Flags& flags, const fs::path&) {
  const auto record = bench_step({.quick = flags.quick(),
                                  .dtype = flags.one_dtype_name(),
                                  .device = flags.device(),
                                  .repeat = flags.repeat(),
                                  .python = python_of(flags)});
  return {record, step_markdown(record), {{"step.svg", step_chart(record)}}};
}

Output measure_all(const Flags& flags, const fs::path& folder);

struct Bench {
  const char* name;
  const char* help;
  std::vector<std::string> flags;  // that it takes beside those that all take
  Output (*run)(const Flags& flags, const fs::path& folder);
};

// The one table of benches; "all" runs those above it.
const std::vector<Bench>& benches() {
  static const std::vector<std::string> usual = {"quick", "dtype", "device"};
  static const std::vector<Bench> table = {
      {"attention", "speed and memory over shapes", usual, measure_attention},
      {"baseline",
       "training at fixed FLOPs",
       {"quick", "dtype", "device", "python"},
       measure_baseline},
      {"flex", "what programs cost", {"quick", "dtype", "device", "python"}, measure_flex},
      {"forward", "a GPT's forward pass", usual, measure_forward},
      {"guide", "six masks", usual, measure_guide},
      {"lab",
       "plain tensors beside flash and flex",
       {"quick", "dtype", "device", "batch", "heads", "seq-len", "head-dim", "block-size",
        "doc-span"},
       measure_lab},
      {"mask",
       "one block mask",
       {"mask", "length", "block-size", "documents", "png"},
       measure_mask},
      {"step", "whole training steps", {"quick", "dtype", "device", "python"}, measure_step},
      {"all", "all of these", usual, measure_all}};
  return table;
}

// "a, b and c"
std::string listed(const std::vector<std::string>& names, const std::string& last) {
  if (names.size() < 2) return join(names);
  const std::vector<std::string> first(names.begin(), names.end() - 1);
  return join(first) + " " + last + " " + names.back();
}

std::vector<std::string> bench_names() {
  std::vector<std::string> names;
  for (const Bench& bench : benches()) names.emplace_back(bench.name);
  return names;
}

const Bench& find_bench(const std::string& what) {
  for (const Bench& bench : benches()) {
    if (bench.name == what) return bench;
  }
  throw std::invalid_argument("[bench] say what to measure: ./bench " +
                              listed(bench_names(), "or") + "; is '" + what + "'");
}

// A flag that would do nothing is a mistake.
void require_own_flags(const Flags& flags, const Bench& chosen) {
  std::map<std::string, std::vector<std::string>> owners;
  for (const Bench& bench : benches()) {
    for (const std::string& flag : bench.flags) owners[flag].emplace_back(bench.name);
  }
  for (const auto& [flag, names] : owners) {
    const bool own = std::find(names.begin(), names.end(), chosen.name) != names.end();
    if (own || !flags.has(flag)) continue;
    throw std::invalid_argument("[bench] --" + flag + " is a flag of ./bench " +
                                listed(names, "and"));
  }
}

Output run_and_write(const Bench& bench, const Flags& flags, const fs::path& folder) {
  Output output = bench.run(flags, folder);
  const std::string name = bench.name;
  output.files[name + ".json"] = output.record.dump(2) + "\n";
  output.files[name + ".md"] = output.report;
  for (const auto& [file, text] : output.files) write_file(folder / file, text);
  return output;
}

Output measure_all(const Flags& flags, const fs::path& folder) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = Clock::now();
  const size_t count = benches().size() - 1;
  const auto none = nlohmann::ordered_json::array();
  Output all{{{"rows", none}, {"published", none}}, ""};
  for (size_t i = 0; i < count; ++i) {
    const Bench& bench = benches()[i];
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    show_progress(
        i, count,
        c10::str("benches done, ", bench.name, " is next, after ", fixed(seconds, 0), " s\n"));
    set_threads(flags.threads());
    const Output one = run_and_write(bench, flags, folder);
    for (const char* key : {"machine", "gemm_tflops"}) all.record[key] = one.record.at(key);
    for (const char* list : {"rows", "published"}) {
      for (nlohmann::ordered_json row : one.record.value(list, none)) {
        row["bench"] = bench.name;
        all.record[list].push_back(row);
      }
    }
    all.report += c10::str("## ", bench.name, ": ", bench.help, "\n\n", one.report, "\n");
  }
  return all;
}

cxxopts::Options make_options() {
  using cxxopts::value;
  cxxopts::Options options("bench",
                           "Measures attention, training steps and runs beside plain tensors and "
                           "ATen's SDPA, what programmed masks and scores cost, and preparing a "
                           "mask.\n");
  options.positional_help(join(bench_names(), "|"));
  std::vector<std::string> about;
  for (const Bench& bench : benches()) about.push_back(c10::str(bench.name, ": ", bench.help));
  const auto text = [] { return value<std::string>(); };
  const auto number = text;
  options.add_options()("what", join(about, "; "), text())("threads", "CPU threads (0: one a core)",
                                                           number())(
      "repeat", "times that each is measured, taking turns (5; baseline 1; all --quick 2)",
      number())("run-id", "name of the record; else YYYYMMDD_HHMMSS", text())(
      "runs-dir", "folder that holds the records (runs)", text())("json", "print the rows as JSON")(
      "help", "show this and stop");
  options.add_options("all but mask")("quick", "short sequences, small batches, few steps")(
      "dtype",
      "all, float32 or bfloat16 (but for attention: auto is what the machine computes fast)",
      text())("device", "auto, cpu, cuda or cuda:N", text());
  options.add_options("mask")("mask", "the mask as text (causal; with documents causal & document)",
                              text())("length", "queries and keys (8192)", number())(
      "block-size", "queries and keys of a block, a multiple of 16 (128; also of lab)", number())(
      "documents", "pack documents of this mean length", number())(
      "png", "draw the mask into this file", text());
  options.add_options("lab")("batch", "rows (2)", number())("heads", "heads (8)", number())(
      "seq-len", "tokens (1024)", number())("head-dim", "size of a head (64)", number())(
      "doc-span", "tokens of a document (256)", number());
  options.add_options("baseline, flex and step")(
      "python", "a Python with torch, to time the same there", text());
  options.parse_positional({"what"});
  return options;
}

int bench(const Flags& flags) {
  const Bench& chosen = find_bench(flags.text("what"));
  require_own_flags(flags, chosen);
  flags.repeat(), flags.dtype_name(), flags.device();  // refused before there is a folder
  set_threads(flags.threads());
  track_cpu_memory();
  const ClaimedFolder folder = claim_folder(flags.text("runs-dir", "runs"), flags.text("run-id"));
  try {
    const Output output = run_and_write(chosen, flags, folder.path);
    std::cout << (flags.has("json") ? output.record.dump(2) + "\n" : output.report);
  } catch (...) {
    std::error_code ignored;
    fs::remove(folder.path, ignored);  // which takes it only if it is empty
    throw;
  }
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
    return bench(Flags(flags));
  });
}
