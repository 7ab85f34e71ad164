#pragma once

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/loader.h"
#include "trainer/attention_setup.h"
#include "trainer/budget.h"
#include "trainer/part_clock.h"
#include "trainer/profile.h"
#include "trainer/step.h"

namespace nanoflex {

/// The part of a run that --profile records: `profile` steps after the warm-up.
class ProfiledSteps {
 public:
  /// Throws std::invalid_argument when the run has too few steps.
  ProfiledSteps(const Config& config, const Budget& budget, at::Device device,
                at::ScalarType dtype);

  /// Whether a step is one of them.
  bool watches(int64_t step) const { return step >= first_ && step <= last_; }
  /// Called around each step of the run, numbered from 1. A run that is taken up again amid these
  /// steps is not profiled.
  void before(int64_t step);
  /// Whether that was the last one to record; then it wrote the trace.
  bool after(int64_t step, const std::filesystem::path& trace);

  /// What was recorded, a step on average, beside what the machine can do, and two questions
  /// answered with a forward and backward pass each over one row of `batch`: is a queries x keys
  /// tensor ever held, and how many fewer launches are there than with plain attention? Leaves
  /// other gradients behind.
  /// REQUIRES: after() said so.
  nlohmann::ordered_json result(const Gpt& model, const AttentionSetup& attention,
                                Optimizers& optimizers, const data::Batch& batch) const;

 private:
  Config config_;
  Budget budget_;
  at::Device device_;
  at::ScalarType dtype_;
  int64_t first_ = 0, last_ = 0;  // 0: none
  std::optional<Profile> profile_;
  std::optional<PartClock> parts_;
  std::chrono::steady_clock::time_point begin_;
  double seconds_ = 0;
  nlohmann::ordered_json recorded_;
};

/// What summary.json keeps of it: {steps, seconds_per_step, launches_per_step, launches_are, parts
/// {name: seconds}, queries_by_keys_tensor, fewer_operations}.
nlohmann::ordered_json profile_summary(const nlohmann::ordered_json& profile);
/// The result as a page of Markdown.
std::string profile_markdown(const nlohmann::json& profile);

}  // namespace nanoflex
