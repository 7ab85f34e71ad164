#pragma once

#include <ATen/Functions.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "trainer/attention_setup.h"
#include "trainer/budget.h"
#include "trainer/evaluate.h"
#include "trainer/run_folder.h"

namespace nanoflex {

/// The most memory that was in use, as trainer/memory.h counts it.
struct Peaks {
  int64_t tensor_bytes = 0, rss_bytes = 0, reserved_bytes = 0;
};

/// What a run adds up for its summary, over all processes that took part in it.
struct Measurement {
  int64_t steps = 0, tokens = 0;
  double flops = 0;
  int64_t unmeasured_steps = 0;  ///< before those that may count towards the throughput
  int64_t measured_steps = 0;
  double measured_seconds = 0;
  std::optional<double> first_loss, final_loss;
  std::optional<Validation> validation;
  std::optional<MaskShare> mask;
  Peaks earlier;  ///< of the processes before this one

  /// Steps after `warmup_steps` count towards the throughput.
  void add(const StepMetrics& metrics, const Budget& budget, int64_t warmup_steps);
  /// Forgets what the settings of the steps so far decided: throughput, peaks, the mask's share.
  void begin_anew();
  /// Of the whole run so far.
  Peaks peaks(at::Device device) const;
};

/// A measurement as a checkpoint keeps it, and back. Reading throws nlohmann::json::exception.
nlohmann::json to_json(const Measurement& measurement, at::Device device);
Measurement measurement_from(const nlohmann::json& saved);

}  // namespace nanoflex
