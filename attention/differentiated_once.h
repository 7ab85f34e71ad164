// For functions whose backward pass runs in kernels, which autograd does not see into: a gradient
// that is differentiated again would pass for a constant.
#pragma once

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

namespace nanoflex {

/// Stands where a gradient's own derivative would be, and refuses to be one.
class NoSecondDerivative : public torch::autograd::Node {
 public:
  NoSecondDerivative(std::string refusal, torch::autograd::edge_list edges)
      : Node(std::move(edges)), refusal_(std::move(refusal)) {}

  torch::autograd::variable_list apply(torch::autograd::variable_list&&) override {
    throw std::invalid_argument(refusal_);
  }

 private:
  const std::string refusal_;
};

/// `results`, which a function's backward pass made of the gradients `upstream`. Where they may be
/// differentiated (create_graph), they depend on all that the function did and on `upstream`,
/// through a node that throws std::invalid_argument, saying `refusal`. To be called in backward().
inline torch::autograd::variable_list differentiated_once(
    torch::autograd::variable_list results, const torch::autograd::variable_list& upstream,
    const std::string& refusal) {
  namespace autograd = torch::autograd;
  if (!at::GradMode::is_enabled()) return results;
  autograd::edge_list edges = autograd::get_current_node()->next_edges();
  for (const at::Tensor& gradient : upstream) {
    if (gradient.defined()) edges.push_back(autograd::impl::gradient_edge(gradient));
  }
  const std::shared_ptr<autograd::Node> node(new NoSecondDerivative(refusal, std::move(edges)),
                                             autograd::deleteNode);
  for (at::Tensor& result : results) {
    if (!result.defined()) continue;
    result = result.detach();
    autograd::set_history(result, node);
  }
  return results;
}

}  // namespace nanoflex
