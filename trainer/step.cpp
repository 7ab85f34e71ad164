#include "trainer/step.h"

#include <ATen/TensorOperators.h>

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

StepResult compute_gradients(const Gpt& model, const AttentionSetup& attention,
                             Optimizers& optimizers, const data::Batch& batch,
                             const StepOptions& options) {
  const StepInputs inputs = step_inputs(batch, options.device);
  const StepTensors result = run_gradients(
      model, bind_rows(attention, inputs.documents, options.rows), optimizers, inputs, options);
  return {result.loss.item<double>(), result.grad_norm.item<double>()};
}

}  // namespace nanoflex
