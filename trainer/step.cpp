#include "trainer/step.h"

#include <ATen/TensorOperators.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

namespace nanoflex {

StepInputs step_inputs(const data::Batch& batch, at::Device device) {
  StepInputs inputs = {.tokens = batch.tokens.to(device),
                       .targets = batch.targets.to(device),
                       .documents = batch.document_starts.cumsum(1).to(device),
                       .count = std::max<int64_t>(1, (batch.targets != -1).sum().item<int64_t>())};
  if (!device.is_cuda()) return inputs;
  inputs.count_on_gpu =
      at::full({}, static_cast<double>(inputs.count), at::TensorOptions(device).dtype(at::kFloat));
  return inputs;
}

std::vector<AttentionChoice> bind_rows(const AttentionSetup& attention, const at::Tensor& documents,
                                       int64_t rows) {
  std::vector<AttentionChoice> choices;
  for (int64_t row = 0; row < documents.size(0); row += rows) {
    choices.push_back(attention.bind_documents(documents.narrow(0, row, rows)));
  }
  return choices;
}

StepTensors run_gradients(const Gpt& model, const std::vector<AttentionChoice>& choices,
                          Optimizers& optimizers, const StepInputs& inputs,
                          const StepOptions& options) {
  optimizers.zero_gradients();
  const bool on_gpu = inputs.count_on_gpu.defined();
  const HeadLossOptions head = {.count = on_gpu ? 1 : inputs.count, .z_loss = options.z_loss};
  at::Tensor total = at::zeros({}, inputs.tokens.options().dtype(at::kFloat));
  for (size_t i = 0; i < choices.size(); ++i) {
    const auto rows = [&](const at::Tensor& x) {
      return x.narrow(0, static_cast<int64_t>(i) * options.rows, options.rows);
    };
    at::Tensor loss = model.loss(rows(inputs.tokens), rows(inputs.targets), choices[i], head);
    if (on_gpu) loss = loss / inputs.count_on_gpu;
    loss.backward();
    total += loss.detach();
  }
  return {total, optimizers.clip_gradients(options.grad_clip)};
}

StepReading::StepReading(const StepTensors& tensors) {
  const at::Device device = tensors.loss.device();
  if (device.is_cpu()) {
    known_ = {tensors.loss.item<double>(), tensors.grad_norm.item<double>()};
    return;
  }
  const at::Tensor both =
      at::stack({tensors.loss.to(at::kDouble), tensors.grad_norm.to(at::kDouble)});
  values_ = at::empty({2}, at::TensorOptions(at::kDouble).pinned_memory(true));
  values_.copy_(both, /*non_blocking=*/true);
  const auto copied = std::make_shared<c10::Event>(device.type());
  copied->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  copied_ = copied;
}

StepResult StepReading::wait() const {
  if (!copied_) return known_;
  copied_->synchronize();
  const auto* values = values_.const_data_ptr<double>();
  return {values[0], values[1]};
}

StepReading compute_gradients(const Gpt& model, const AttentionSetup& attention,
                              Optimizers& optimizers, const data::Batch& batch,
                              const StepOptions& options) {
  const StepInputs inputs = step_inputs(batch, options.device);
  const StepTensors result = run_gradients(
      model, bind_rows(attention, inputs.documents, options.rows), optimizers, inputs, options);
  return StepReading(result);
}

}  // namespace nanoflex
