#pragma once

#include <memory>
#include <string>

#include "trainer/step.h"

namespace nanoflex {

struct RecordedStepOptions {
  StepOptions step;
  bool graph = true;     ///< else every step is launched
  int64_t launched = 3;  ///< steps before the one that is recorded, which allocate and compile
};

/// The first replays, which are compared with the same steps launched.
constexpr int64_t kCheckedReplays = 2;

/// Steps on a GPU, one of which is recorded as CUDA graphs (its launches and where they read and
/// write) and replayed from then on: a step then takes as long as its kernels and not as their
/// launches. The kernels are the same, and so are the losses.
class StepRecorder {
 public:
  virtual ~StepRecorder() = default;
  virtual StepReading compute_gradients(const data::Batch& batch) = 0;
  virtual void update(double multiplier) = 0;
  virtual std::string take_news() = 0;
};

/// Null in a build without CUDA. The references must outlive it.
std::unique_ptr<StepRecorder> make_step_recorder(const Gpt& model, const AttentionSetup& attention,
                                                 Optimizers& optimizers,
                                                 const RecordedStepOptions& options);

/// The steps of a run: launched, or by a StepRecorder.
class RecordedStep {
 public:
  /// Throws std::invalid_argument without `graph` on a CPU, which has none to leave out.
  RecordedStep(const Gpt& model, const AttentionSetup& attention, Optimizers& optimizers,
               const RecordedStepOptions& options);

  /// Whether one of the steps is recorded.
  bool records() const { return recorder_ != nullptr; }
  /// As the function of step.h; every batch is of the first one's shape.
  StepReading compute_gradients(const data::Batch& batch);
  /// As Optimizers::step(), with the gradients of compute_gradients().
  void update(double multiplier);
  /// Once, what the user should know: that the step was recorded, or why it could not be; else "".
  std::string take_news();

 private:
  const Gpt& model_;
  const AttentionSetup& attention_;
  Optimizers& optimizers_;
  const RecordedStepOptions options_;
  std::unique_ptr<StepRecorder> recorder_;  // null where each step is launched
};

}  // namespace nanoflex
