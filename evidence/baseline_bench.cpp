#include "evidence/baseline_bench.h"

#include <ATen/Parallel.h>

#include <fstream>
#include <iostream>
#include <stdexcept>

#include "evidence/bars.h"
#include "evidence/deterministic_guard.h"
#include "evidence/passes.h"
#include "evidence/published.h"
#include "evidence/python_peer.h"
#include "evidence/rows.h"
#include "trainer/machine.h"
#include "trainer/markdown.h"
#include "trainer/text.h"
#include "trainer/train.h"

namespace nanoflex {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// While it lives, what train() prints goes to stderr.
class OutputGuard {
 public:
  OutputGuard() : out_(std::cout.rdbuf(std::cerr.rdbuf())) {}
  ~OutputGuard() { std::cout.rdbuf(out_); }
  OutputGuard(const OutputGuard&) = delete;
  OutputGuard& operator=(const OutputGuard&) = delete;

 private:
  std::streambuf* out_;
};

// The summaries of one backend's runs.
struct Runs {
  std::vector<double> step_ms;
  std::vector<std::string> ids;
  int64_t peak_bytes = 0;
  json last;  // summary
};

json train_once(const Config& config) {
  const OutputGuard output;
  const DeterministicGuard kernels;
  const TrainResult result = train(config, {"./bench", "baseline"});
  if (result.status != "finished") {
    throw std::runtime_error("[bench] the run was " + result.status + "; its record is " +
                             result.folder.string());
  }
  std::ifstream file(result.folder / "summary.json");
  return json::parse(file);
}

void add_run(Runs& runs, const json& summary) {
  const json& results = summary.at("results");
  if (results.at("tokens_per_second").is_null()) {
    throw std::invalid_argument("[bench] no step is timed: max_steps must be above warmup_steps, " +
                                summary.at("budget").at("warmup_steps").dump() + ", is " +
                                summary.at("budget").at("steps").dump());
  }
  const double speed = results.at("tokens_per_second").get<double>();
  runs.step_ms.push_back(1e3 * summary.at("budget").at("tokens_per_step").get<double>() / speed);
  runs.ids.push_back(summary.at("run_id").get<std::string>());
  runs.peak_bytes = std::max(runs.peak_bytes, results.at("peak_memory_bytes").get<int64_t>());
  runs.last = summary;
}

ordered_json row_of(const RowName& name, const Measured& step, const Runs& runs, double gemm) {
  const json& budget = runs.last.at("budget");
  const double seconds = step.median_ms / 1e3;
  const double tflops = budget.at("flops_per_step").get<double>() / seconds / 1e12;
  ordered_json row = measured_row(name, step);
  row["share_of_gemm"] = tflops / gemm;
  row["mask"] = runs.last.at("attention").at("mask").get<std::string>();
  row["tokens_per_second"] = budget.at("tokens_per_step").get<double>() / seconds;
  row["tflops_per_second"] = tflops;
  row["final_loss"] = runs.last.at("results").at("final_loss").get<double>();
  row["runs"] = runs.ids;
  return row;
}

// The command that a person types, for the same steps.
std::vector<std::string> whole_command(const BaselineOptions& options, at::ScalarType dtype) {
  const Config& config = options.config;
  std::vector<std::string> words = {options.program.string()};
  const auto add = [&](const char* flag, const std::string& value) {
    words.insert(words.end(), {flag, value});
  };
  if (config.target_flops) add("--target-flops", c10::str(*config.target_flops));
  if (config.max_steps) add("--max-steps", std::to_string(*config.max_steps));
  add("--attention", "flex");
  add("--device", "cpu");
  add("--dtype", dtype_name(dtype));
  add("--threads", std::to_string(at::get_num_threads()));
  return words;
}

ordered_json time_whole_runs(const BaselineOptions& options, at::ScalarType dtype, int64_t steps) {
  const std::vector<std::string> typed = whole_command(options, dtype);
  std::string text = "./train";
  for (size_t i = 1; i < typed.size(); ++i) text += " " + typed[i];
  ordered_json whole = {{"torch", nullptr},
                        {"command", text},
                        {"seconds", ordered_json::array()},
                        {"eager_seconds", ordered_json::array()}};
  time_command({typed[0], "--help"}, "it says above why");  // which builds what is not yet built
  for (int64_t repeat = 0; repeat < options.repeat; ++repeat) {
    show_progress(repeat + 1, options.repeat, "whole commands");
    std::vector<std::string> own = typed;
    own.insert(own.end(), {"--quiet", "--runs-dir", options.runs_dir.string(), "--run-id",
                           "whole_" + std::to_string(repeat + 1)});
    whole["seconds"].push_back(time_command(own, "it says above why").seconds);
    const TimedRun eager = time_command(
        python_command(options.python, "section_a_run", {dtype_name(dtype), std::to_string(steps)}),
        kPythonHint);
    whole["eager_seconds"].push_back(eager.seconds);
    whole["torch"] = json::parse(eager.output).at("torch");
  }
  return whole;
}

std::string whole_markdown(const ordered_json& bench) {
  const ordered_json& whole = bench.at("whole_runs");
  const auto own = summarise(whole.at("seconds").get<std::vector<double>>());
  const auto eager = summarise(whole.at("eager_seconds").get<std::vector<double>>());
  return "\nWhole commands from their start to their end, taking turns; Nanoflex's also reads its "
         "text, validates, and writes the record and a checkpoint:\n\n" +
         markdown_table(
             {{"command", "s", "is faster"},
              {"`" + whole.at("command").get<std::string>() + "`", fixed(own.median_ms, 1),
               ratio_text(times_faster(own, eager))},
              {c10::str("PyTorch ", whole.at("torch").get<std::string>(), ", eager, ",
                        bench.at("steps").dump(), " steps of the same model, random tokens"),
               fixed(eager.median_ms, 1), "-"}},
             1);
}

}  // namespace

BaselineOptions baseline_options(bool quick) {
  BaselineOptions options{.quick = quick};
  if (quick) {
    options.config.target_flops = std::nullopt;
    options.config.max_steps = 8;
    options.config.warmup_steps = 5;  // as many as a GPU's recording takes
    options.config.val_tokens = 2048;
  }
  return options;
}

ordered_json bench_baseline(const BaselineOptions& options) {
  Config config = options.config;
  if (config.mask == "auto") config.mask = "causal";
  config.runs_dir = options.runs_dir.string();
  const at::Device device = choose_device(config.device);
  const at::ScalarType dtype = choose_dtype(config.dtype, device);
  std::vector<Runs> runs(options.backends.size());
  std::vector<double> gemm;
  for (int64_t repeat = 0; repeat < options.repeat; ++repeat) {
    for (size_t i = 0; i < runs.size(); ++i) {
      config.attention = options.backends[i];
      config.run_id = options.backends[i];
      if (options.repeat > 1) config.run_id += "_" + std::to_string(repeat + 1);
      show_progress(repeat * runs.size() + i + 1, options.repeat * runs.size(), config.run_id);
      gemm.push_back(gemm_tflops(dtype, {.repeat = 1, .device = device}));
      add_run(runs[i], train_once(config));
    }
  }
  const double rate = summarise(gemm).median_ms;  // the median of anything
  const json& budget = runs[0].last.at("budget");
  ordered_json record = {{"machine", describe_environment(device)},
                         {"gemm_tflops", rate},
                         {"quick", options.quick},
                         {"steps", budget.at("steps")},
                         {"warmup_steps", budget.at("warmup_steps")},
                         {"tokens_per_step", budget.at("tokens_per_step")},
                         {"rows", ordered_json::array()},
                         {"published", published_json("baseline")}};
  std::vector<Measured> measured;
  for (size_t i = 0; i < runs.size(); ++i) {
    measured.push_back(summarise(runs[i].step_ms));
    measured.back().name = options.backends[i];
    measured.back().peak_bytes = runs[i].peak_bytes;
  }
  const std::string what = budget.at("steps").dump() + " steps";
  for (size_t i = 0; i < runs.size(); ++i) {
    ordered_json row =
        row_of({what, options.backends[i], "step", device, dtype}, measured[i], runs[i], rate);
    add_ratios(row, measured, i);
    record["rows"].push_back(row);
  }
  if (!options.python.empty()) {
    record["whole_runs"] = time_whole_runs(options, dtype, budget.at("steps").get<int64_t>());
  }
  return record;
}

std::string baseline_markdown(const ordered_json& bench) {
  std::string page =
      bench.at("steps").dump() + " steps of " + bench.at("tokens_per_step").dump() +
      " tokens, the first " + bench.at("warmup_steps").dump() + " left out of the timing" +
      (bench.at("quick").get<bool>() ? " (quick: the whole budget pays for more steps)" : "") +
      ".\n\n";
  Table table = {{"backend", "mask", "dtype", "tokens/s", "TFLOP/s", "of GEMM", "over vanilla",
                  "spread", "peak MB", "loss at the last step"}};
  for (const ordered_json& row : bench.at("rows")) {
    table.push_back(
        {row.at("backend").get<std::string>(), row.at("mask").get<std::string>(),
         row.at("dtype").get<std::string>(), fixed(row.at("tokens_per_second").get<double>(), 0),
         fixed(row.at("tflops_per_second").get<double>(), 3),
         fixed(row.at("share_of_gemm").get<double>(), 2), ratio_text(row, "vanilla"),
         spread_text(row), megabytes(row), fixed(row.at("final_loss").get<double>(), 4)});
  }
  return page + markdown_table(table, 3) +
         (bench.contains("whole_runs") ? whole_markdown(bench) : "") +
         published_markdown("baseline");
}

std::string baseline_chart(const ordered_json& bench) {
  std::vector<std::string> backends;
  Bars bars{"measured", {}};
  for (const ordered_json& row : bench.at("rows")) {
    backends.push_back(row.at("backend").get<std::string>());
    bars.values.emplace_back(row.at("tokens_per_second").get<double>());
  }
  return bar_chart("Training at fixed FLOPs, " + bench.at("steps").dump() + " steps",
                   "attention backend", "throughput, tokens/s", backends, {bars});
}

}  // namespace nanoflex
