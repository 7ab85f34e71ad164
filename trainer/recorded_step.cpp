#include "trainer/recorded_step.h"

#include <stdexcept>

namespace nanoflex {

RecordedStep::RecordedStep(const Gpt& model, const AttentionSetup& attention,
                           Optimizers& optimizers, const RecordedStepOptions& options)
    : model_(model), attention_(attention), optimizers_(optimizers), options_(options) {
  const at::Device device = options.step.device;
  if (device.is_cuda() && options.graph) {
    recorder_ = make_step_recorder(model, attention, optimizers, options);
  } else if (!device.is_cuda() && !options.graph) {
    throw std::invalid_argument("[train] graph is of a GPU's steps, and the device is " +
                                device.str() + "; leave out --no-graph");
  }
}

StepReading RecordedStep::compute_gradients(const data::Batch& batch) {
  if (recorder_) return recorder_->compute_gradients(batch);
  return nanoflex::compute_gradients(model_, attention_, optimizers_, batch, options_.step);
}

void RecordedStep::update(double multiplier) {
  recorder_ ? recorder_->update(multiplier) : optimizers_.step(multiplier);
}

std::string RecordedStep::take_news() { return recorder_ ? recorder_->take_news() : ""; }

}  // namespace nanoflex
