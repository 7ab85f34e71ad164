#include "trainer/step.h"

#include <ATen/TensorOperators.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <exception>
#include <utility>

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

struct StepReading::Arrival {
  explicit Arrival(c10::DeviceType device) : copied(device) {}
  // Where the GPU has failed, giving back memory that it was to write would end the program before
  // the record says why: there it is kept.
  ~Arrival() {
    try {
      copied.synchronize();
    } catch (const std::exception&) {
      new at::Tensor(std::move(values));
    }
  }
  Arrival(const Arrival&) = delete;
  Arrival& operator=(const Arrival&) = delete;

  at::Tensor values =  // [2] fp64, of the host
      at::empty({2}, at::TensorOptions(at::kDouble).pinned_memory(true));
  c10::Event copied;
};

StepReading::StepReading(const StepTensors& tensors) {
  const at::Device device = tensors.loss.device();
  if (device.is_cpu()) {
    known_ = {tensors.loss.item<double>(), tensors.grad_norm.item<double>()};
    return;
  }
  const at::Tensor both =
      at::stack({tensors.loss.to(at::kDouble), tensors.grad_norm.to(at::kDouble)});
  arrival_ = std::make_shared<Arrival>(device.type());
  arrival_->values.copy_(both, /*non_blocking=*/true);
  arrival_->copied.record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
}

StepResult StepReading::wait() const {
  if (!arrival_) return known_;
  arrival_->copied.synchronize();
  const auto* values = arrival_->values.const_data_ptr<double>();
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
