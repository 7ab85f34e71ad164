#pragma once

#include <memory>

#include "data/loader.h"
#include "model/gpt.h"
#include "trainer/attention_setup.h"
#include "trainer/optimizers.h"

namespace nanoflex {

struct StepOptions {
  at::Device device = at::kCPU;
  int64_t rows = 1;      ///< of a micro-batch; their gradients add up to the whole batch's mean
  double grad_clip = 0;  ///< largest norm; 0: any
  double z_loss = 0;     ///< as in model/head.h
};

struct StepResult {
  double loss, grad_norm;
};

/// What a step reads, on the model's device.
struct StepInputs {
  at::Tensor tokens, targets, documents;  ///< [B, T] int64; documents are numbered within the row
  /// Targets that are not -1, at least 1, which the losses are divided by. On a GPU an fp32 scalar
  /// of its memory, so that a recorded step (recorded_step.h) need not know it.
  int64_t count = 1;
  at::Tensor count_on_gpu = {};
};
StepInputs step_inputs(const data::Batch& batch, at::Device device);

/// Micro-batches of the inputs' rows, each bound to its documents.
std::vector<AttentionChoice> bind_rows(const AttentionSetup& attention, const at::Tensor& documents,
                                       int64_t rows);

/// The loss and the gradients' norm, scalars on the model's device, for which nothing waits.
struct StepTensors {
  at::Tensor loss, grad_norm;
};
StepTensors run_gradients(const Gpt& model, const std::vector<AttentionChoice>& choices,
                          Optimizers& optimizers, const StepInputs& inputs,
                          const StepOptions& options);

/// A step's result on its way to the host, which may queue more work meanwhile.
class StepReading {
 public:
  /// Queues the copy behind what computes the tensors; on a CPU they are there.
  explicit StepReading(const StepTensors& tensors);

  StepResult wait() const;

 private:
  struct Arrival;
  StepResult known_{};
  std::shared_ptr<Arrival> arrival_;  // of what is not known yet
};

/// Forward and backward over one batch: leaves its gradients, clipped, in the model's parameters.
/// Optimizers::step() then updates them.
StepReading compute_gradients(const Gpt& model, const AttentionSetup& attention,
                              Optimizers& optimizers, const data::Batch& batch,
                              const StepOptions& options);

}  // namespace nanoflex
