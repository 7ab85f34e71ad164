// The autograd node of the fused path: it saves q, k, v, o and the logsumexp; the backward kernels
// recompute the rest (Dao, "FlashAttention-2", arXiv:2307.08691).
#include "attention/fused.h"

#include <torch/csrc/autograd/custom_function.h>

#include "attention/cpu/dispatch.h"
#include "attention/cpu/fused_cpu.h"
#include "attention/cuda/flash_cuda.h"
#include "attention/differentiated_once.h"

namespace nanoflex {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

FusedResult run_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const FusedOptions& options) {
  return q.is_cpu() ? cpu::forward(q, k, v, options, cpu::chosen_kernels())
                    : forward_cuda(q, k, v, options);
}

FusedGradients run_backward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const FusedResult& result, const at::Tensor& d_output,
                            const at::Tensor& d_logsumexp, const FusedOptions& options) {
  return q.is_cpu()
             ? cpu::backward(q, k, v, result, d_output, d_logsumexp, options, cpu::chosen_kernels())
             : backward_cuda(q, k, v, result, d_output, d_logsumexp, options);
}

// Autograd's context holds no C++ values but those in a capsule.
struct Call : torch::CustomClassHolder {
  Call(const FusedOptions& options, const std::string& backend)
      : options(options), backend(backend) {}
  FusedOptions options;
  std::string backend;
};

// What mask and score read, which is read again by the backward pass.
variable_list captured_tensors(const FusedOptions& options) {
  variable_list all;
  for (const flex::Expression& expression : {options.mask, options.score}) {
    if (!expression.defined()) continue;
    const variable_list read = flex::watched_tensors_of(expression);
    all.insert(all.end(), read.begin(), read.end());
  }
  return all;
}

// `captured` only tells autograd what the result depends on.
struct FusedForward : torch::autograd::Function<FusedForward> {
  static variable_list forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, at::TensorList /*captured*/,
                               const c10::intrusive_ptr<Call>& call) {
    const FusedResult result = run_forward(q, k, v, call->options);
    variable_list saved = {q, k, v, result.output, result.logsumexp, result.denominator};
    const variable_list read = captured_tensors(call->options);
    saved.insert(saved.end(), read.begin(), read.end());  // so that changes are noticed
    context->save_for_backward(saved);
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    return {result.output, result.logsumexp};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto call =
        c10::static_intrusive_pointer_cast<Call>(context->saved_data["call"].toCapsule());
    const at::Tensor d_output = gradients[0].defined() ? gradients[0] : at::zeros_like(saved[3]);
    FusedGradients found;
    {
      const at::NoGradGuard no_grad;
      found = run_backward(saved[0], saved[1], saved[2], {saved[3], saved[4], saved[5]}, d_output,
                           gradients[1], call->options);
    }
    variable_list result = {found.dq, found.dk, found.dv};
    result.insert(result.end(), found.captured.begin(), found.captured.end());
    result.emplace_back();  // none for the call
    return differentiated_once(std::move(result), gradients,
                               "[attention] backend '" + call->backend +
                                   "' has no second derivative; use 'vanilla', which has");
  }
};

}  // namespace

flex::TileCodeOptions tile_code_options(const at::Tensor& q, const at::Tensor& k,
                                        const FusedOptions& options) {
  return {.mask = options.mask,
          .score = options.score,
          .B = q.size(0),
          .H = q.size(1),
          .T = q.size(2),
          .S = k.size(2)};
}

Attention attend_fused(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const FusedOptions& options, const std::string& backend) {
  variable_list captured;
  if (options.score.defined()) captured = flex::differentiable_tensors(options.score);
  const variable_list result = FusedForward::apply(q, k, v, at::TensorList(captured),
                                                   c10::make_intrusive<Call>(options, backend));
  return {result[0], options.need_logsumexp ? result[1] : at::Tensor()};
}

std::string why_no_fused_kernels(const at::Tensor& q) {
  if (!q.is_cpu()) return why_no_flash_cuda(q);
  if (q.scalar_type() == at::kFloat || q.scalar_type() == at::kBFloat16) return "";
  return std::string("its kernels take float32 and bfloat16, not ") +
         c10::toString(q.scalar_type());
}

}  // namespace nanoflex
