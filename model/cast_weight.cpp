#include "model/cast_weight.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

namespace nanoflex {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// `copy` in the place of value.to(its dtype).
struct WeightCast : torch::autograd::Function<WeightCast> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& value,
                            const at::Tensor& copy) {
    context->saved_data["type"] = value.scalar_type();
    return copy.detach();
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    return {gradients[0].to(context->saved_data["type"].toScalarType()), {}};
  }
};

}  // namespace

at::Tensor CastWeight::in(at::ScalarType type) const {
  if (value_.scalar_type() == type) return value_;
  const at::Tensor copy = copy_in(type);
  const bool differentiable = at::GradMode::is_enabled() && value_.requires_grad();
  return differentiable ? WeightCast::apply(value_, copy) : copy;
}

at::Tensor CastWeight::copy_in(at::ScalarType type) const {
  const at::NoGradGuard no_grad;
  if (value_.scalar_type() == type) return value_.detach();
  at::Tensor& copy = copy_->tensor;
  const bool exists = copy.defined() && copy.scalar_type() == type;
  if (exists && copy_->version == value_._version()) return copy;
  if (exists) {
    copy.copy_(value_);
  } else {
    copy = value_.detach().to(type);
  }
  copy_->version = value_._version();
  return copy;
}

at::Tensor CastWeight::bfloat16_copy() const {
  const at::Tensor& copy = copy_->tensor;
  return copy.defined() && copy.scalar_type() == at::kBFloat16 ? copy : at::Tensor();
}

void CastWeight::written() const {
  value_.unsafeGetTensorImpl()->bump_version();
  if (!copy_->tensor.defined()) return;
  copy_->tensor.unsafeGetTensorImpl()->bump_version();
  if (copy_->tensor.scalar_type() == at::kBFloat16) copy_->version = value_._version();
}

void CastWeight::renew_copy() const {
  const at::NoGradGuard no_grad;
  value_.unsafeGetTensorImpl()->bump_version();
  if (!copy_->tensor.defined()) return;
  copy_->tensor.copy_(value_);
  copy_->version = value_._version();
}

}  // namespace nanoflex
