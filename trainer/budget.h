#pragma once

#include <cstdint>
#include <optional>

#include "model/gpt.h"
#include "trainer/config.h"

namespace nanoflex {

/// The fixed-FLOPs arithmetic of a run.
struct Budget {
  int64_t flops_per_token = 0;  ///< 6 (parameters - embedding) + 12 layers heads head_dim T
  int64_t attention_flops_per_token = 0;  ///< the second term alone
  int64_t tokens_per_step = 0;
  int64_t flops_per_step = 0;
  std::optional<int64_t> steps;  ///< the fewer of max_steps and what target_flops pays for
  std::optional<double> seconds;
};

/// Forward and backward FLOPs of a token, nanochat's convention (Kaplan et al. 2020, plus attention
/// that is not halved for causality).
int64_t flops_per_token(const Gpt& model);
int64_t attention_flops_per_token(const Gpt& model);

/// Throws std::invalid_argument when target_flops does not pay for one step.
Budget make_budget(const Gpt& model, const Config& config);

/// The steps that a budget pays for when so many have been taken for so many FLOPs, maybe at other
/// prices than a step's now.
std::optional<int64_t> steps_after(const Budget& budget, const Config& config, int64_t steps,
                                   double flops);

/// The share of the budget that so many steps, in so many seconds, have used: at most 1 in steps,
/// and from 1 on all of it.
double spent_share(const Budget& budget, int64_t steps, double seconds);

/// The learning rate's multiplier at `step` (from 1) of `steps`: a linear rise over
/// lr_warmup_steps, then 1, then a linear fall to 0 over the last lr_warmdown_steps.
double learning_rate_multiplier(const Config& config, int64_t step, std::optional<int64_t> steps);

}  // namespace nanoflex
