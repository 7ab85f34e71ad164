// The fused path: exact attention that never holds a T x S tensor. Autograd saves q, k, v, o and
// the logsumexp; the backward kernels recompute the rest (Dao, "FlashAttention-2",
// arXiv:2307.08691).
#include <torch/autograd.h>

#include <stdexcept>

#include "attention/backends.h"
#include "attention/cpu/dispatch.h"
#include "attention/cpu/fused_cpu.h"
#include "attention/cuda/flash_cuda.h"
#include "attention/flex/band.h"

namespace nanoflex {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

FlashCudaOptions cuda_options(const FusedOptions& options) {
  const auto side = [](int64_t bound) { return bound == FusedOptions::kUnbounded ? -1 : bound; };
  return {.left = side(options.left),
          .right = side(options.right),
          .scale = options.scale,
          .dropout = options.dropout.probability,
          .seed = options.dropout.seed};
}

FusedResult run_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const FusedOptions& options) {
  if (q.is_cpu()) return cpu::forward(q, k, v, options, cpu::chosen_kernels());
  const FlashCudaForward result = forward_cuda(q, k, v, cuda_options(options));
  return {result.output, result.logsumexp, result.denominator};
}

FusedGradients run_backward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const FusedResult& result, const at::Tensor& d_output,
                            const at::Tensor& d_logsumexp, const FusedOptions& options) {
  if (q.is_cpu()) {
    return cpu::backward(q, k, v, result, d_output, d_logsumexp, options, cpu::chosen_kernels());
  }
  const FlashCudaBackward gradients = backward_cuda({.q = q,
                                                     .k = k,
                                                     .v = v,
                                                     .output = result.output,
                                                     .logsumexp = result.logsumexp,
                                                     .denominator = result.denominator,
                                                     .d_output = d_output,
                                                     .d_logsumexp = d_logsumexp},
                                                    cuda_options(options));
  return {gradients.dq, gradients.dk, gradients.dv};
}

// The backward pass as a function of its own, so that deriving it again can be refused.
struct FlashBackward : torch::autograd::Function<FlashBackward> {
  static variable_list forward(AutogradContext*, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const FusedResult& result,
                               const at::Tensor& d_output, const at::Tensor& d_logsumexp,
                               const FusedOptions& options) {
    const FusedGradients gradients = run_backward(q, k, v, result, d_output, d_logsumexp, options);
    return {gradients.dq, gradients.dk, gradients.dv};
  }

  static variable_list backward(AutogradContext*, const variable_list&) {
    throw std::invalid_argument(
        "[attention] backend 'flash' has no second derivative; use 'vanilla', which has");
  }
};

// Autograd's context holds no C++ values but those in a capsule.
struct SavedOptions : torch::CustomClassHolder {
  explicit SavedOptions(const FusedOptions& options) : options(options) {}
  FusedOptions options;
};

struct FlashForward : torch::autograd::Function<FlashForward> {
  static variable_list forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const FusedOptions& options) {
    const FusedResult result = run_forward(q, k, v, options);
    context->save_for_backward({q, k, v, result.output, result.logsumexp, result.denominator});
    context->saved_data["options"] =
        c10::IValue::make_capsule(c10::make_intrusive<SavedOptions>(options));
    return {result.output, result.logsumexp};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto options = c10::static_intrusive_pointer_cast<SavedOptions>(
        context->saved_data["options"].toCapsule());
    const at::Tensor d_output = gradients[0].defined() ? gradients[0] : at::zeros_like(saved[3]);
    variable_list result = FlashBackward::apply(saved[0], saved[1], saved[2],
                                                FusedResult{saved[3], saved[4], saved[5]}, d_output,
                                                gradients[1], options->options);
    result.emplace_back();  // none for the options
    return result;
  }
};

std::string why_unsupported(const at::Tensor& q, const at::Tensor&, const at::Tensor&,
                            const Spec& spec) {
  if (!q.is_cpu()) {
    const std::string reason = why_no_flash_cuda(q);
    if (!reason.empty()) return reason;
  } else if (q.scalar_type() != at::kFloat && q.scalar_type() != at::kBFloat16) {
    return std::string("its kernels take float32 and bfloat16, not ") +
           c10::toString(q.scalar_type());
  }
  const auto band = flex::band_of(spec.mask);
  if (!band) {
    return "mask '" + flex::to_text(spec.mask) + "' is not a band of keys around the query";
  }
  if (!q.is_cpu() && (band->left.value_or(0) < 0 || band->right.value_or(0) < 0)) {
    return "mask '" + flex::to_text(spec.mask) + "' hides the query's own position";
  }
  if (spec.score.defined()) {
    return "it takes no score expression ('" + flex::to_text(spec.score) + "')";
  }
  return "";
}

Attention forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Spec& spec) {
  const flex::Band band = *flex::band_of(spec.mask);
  const FusedOptions options = {.left = band.left.value_or(FusedOptions::kUnbounded),
                                .right = band.right.value_or(FusedOptions::kUnbounded),
                                .scale = scale_of(q, spec),
                                .dropout = spec.dropout};
  const variable_list result = FlashForward::apply(q, k, v, options);
  return {result[0], result[1]};
}

}  // namespace

Backend flash_backend() { return {"flash", true, why_unsupported, forward}; }

}  // namespace nanoflex
