#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "trainer/config.h"

namespace nanoflex {

struct BaselineOptions {
  Config config = {};  ///< of the runs; their attention, run_id and runs_dir are set for each
  std::vector<std::string> backends = {"vanilla", "sdpa", "flash", "flex"};
  int64_t repeat = 1;
  std::filesystem::path runs_dir = "runs";  ///< gets a run record for each backend and repeat
  std::string python = {};  ///< an interpreter with torch, whose eager run is timed; "": none
  std::filesystem::path program = "./train";  ///< what is timed beside it
  bool quick = false;                         ///< that it is fewer steps than the budget pays for
};

/// The fixed-FLOPs run, 2e12 FLOPs; `quick`: 8 steps of it, 5 of them warm-up.
BaselineOptions baseline_options(bool quick);

/// Trains with each backend, under one causal mask unless the config names another, through
/// train(), taking turns where `repeat` is above 1. Returns {machine, gemm_tflops, quick, steps,
/// warmup_steps, tokens_per_step, rows, published}: a row has what every bench's has, pass "step"
/// and median_ms of a step, and mask, tokens_per_second, tflops_per_second, final_loss and runs
/// (ids). With `python` also whole_runs {torch, command, seconds, eager_seconds}: `program`'s whole
/// run with flex, from start to end, in turn with as many eager steps of the same model in PyTorch,
/// each repeated like the runs. What train() prints goes to stderr. Throws std::invalid_argument as
/// train() does and when no step would be timed, std::runtime_error when a run is interrupted or
/// `python` fails.
nlohmann::ordered_json bench_baseline(const BaselineOptions& options);

std::string baseline_markdown(const nlohmann::ordered_json& bench);
std::string baseline_chart(const nlohmann::ordered_json& bench);

}  // namespace nanoflex
