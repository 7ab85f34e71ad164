#include "trainer/step.h"

#include <algorithm>

namespace nanoflex {

StepResult compute_gradients(const Gpt& model, const AttentionSetup& attention,
                             Optimizers& optimizers, const data::Batch& batch,
                             const StepOptions& options) {
  optimizers.zero_gradients();
  const at::Device device = options.device;
  const at::Tensor starts = batch.document_starts.to(device), tokens = batch.tokens.to(device);
  const at::Tensor targets = batch.targets.to(device);
  const HeadLossOptions head = {
      .count = std::max<int64_t>(1, (batch.targets != -1).sum().item<int64_t>()),
      .z_loss = options.z_loss};
  at::Tensor total = at::zeros({}, at::TensorOptions().device(device));
  for (int64_t row = 0; row < tokens.size(0); row += options.rows) {
    const auto rows = [&](const at::Tensor& x) { return x.narrow(0, row, options.rows); };
    const at::Tensor loss =
        model.loss(rows(tokens), rows(targets), attention.bind(rows(starts)), head);
    loss.backward();
    total += loss.detach();
  }
  const at::Tensor norm = optimizers.clip_gradients(options.grad_clip);
  return {total.item<double>(), norm.item<double>()};
}

}  // namespace nanoflex
