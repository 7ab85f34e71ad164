#include "trainer/budget.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <stdexcept>

namespace nanoflex {

int64_t flops_per_token(const Gpt& model) {
  int64_t multiplied = 0;
  for (const Parameter& parameter : model.parameters()) {
    if (parameter.role != Role::kEmbedding) multiplied += parameter.value.numel();
  }
  return 6 * multiplied + attention_flops_per_token(model);
}

int64_t attention_flops_per_token(const Gpt& model) {
  const GptOptions& o = model.options();
  return 12 * o.n_layer * o.n_head * o.head_dim() * o.sequence_len;
}

Budget make_budget(const Gpt& model, const Config& config) {
  Budget budget;
  budget.flops_per_token = flops_per_token(model);
  budget.attention_flops_per_token = attention_flops_per_token(model);
  budget.tokens_per_step = config.batch_size * config.sequence_len;
  const double per_step =
      static_cast<double>(budget.flops_per_token) * static_cast<double>(budget.tokens_per_step);
  constexpr double kLargestStep = 9e18;
  if (per_step > kLargestStep) {
    std::ostringstream text;
    text << "[budget] a step must cost less than " << kLargestStep << " FLOPs, costs " << per_step
         << "; lower batch_size or the model";
    throw std::invalid_argument(text.str());
  }
  budget.flops_per_step = budget.flops_per_token * budget.tokens_per_step;
  budget.steps = config.max_steps;
  budget.seconds = config.max_seconds;
  if (config.target_flops) {
    if (*config.target_flops < per_step) {
      throw std::invalid_argument("[budget] target_flops must pay for one step of " +
                                  std::to_string(budget.flops_per_step) + " FLOPs, is " +
                                  std::to_string(static_cast<int64_t>(*config.target_flops)) +
                                  "; raise it, or lower batch_size or the model");
    }
    const auto paid =
        static_cast<int64_t>(std::min(std::ceil(*config.target_flops / per_step), 1e15));
    budget.steps = std::min(paid, budget.steps.value_or(paid));
  }
  return budget;
}

std::optional<int64_t> steps_after(const Budget& budget, const Config& config, int64_t steps,
                                   double flops) {
  const auto price = static_cast<double>(budget.flops_per_step);
  const bool one_price = std::abs(flops - static_cast<double>(steps) * price) < price / 2;
  if (!config.target_flops || one_price) return budget.steps;
  const double paid = std::ceil(std::max(0.0, *config.target_flops - flops) / price);
  const int64_t all = steps + static_cast<int64_t>(std::min(paid, 1e15));
  return std::min(all, config.max_steps.value_or(all));
}

double spent_share(const Budget& budget, int64_t steps, double seconds) {
  double share = 0;
  if (budget.steps) share = static_cast<double>(steps) / static_cast<double>(*budget.steps);
  if (budget.seconds && *budget.seconds > 0) share = std::max(share, seconds / *budget.seconds);
  if (budget.seconds && seconds >= *budget.seconds) share = std::max(share, 1.0);
  return share;
}

double learning_rate_multiplier(const Config& config, int64_t step, std::optional<int64_t> steps) {
  double multiplier = 1;
  if (step <= config.lr_warmup_steps) {
    multiplier = static_cast<double>(step) / static_cast<double>(config.lr_warmup_steps);
  }
  if (steps && config.lr_warmdown_steps > 0) {
    const auto left = static_cast<double>(*steps - step + 1);
    multiplier = std::min(multiplier, left / static_cast<double>(config.lr_warmdown_steps));
  }
  return multiplier;
}

}  // namespace nanoflex
