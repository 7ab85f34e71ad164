#pragma once

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

/// Forward and backward over one batch: leaves its gradients, clipped, in the model's parameters.
/// Optimizers::step() then updates them.
StepResult compute_gradients(const Gpt& model, const AttentionSetup& attention,
                             Optimizers& optimizers, const data::Batch& batch,
                             const StepOptions& options);

}  // namespace nanoflex
