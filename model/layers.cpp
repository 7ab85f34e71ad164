#include "model/layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rms_norm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "attention/differentiated_once.h"
#include "model/cpu/dispatch.h"
#include "model/layers_cpu.h"

namespace nanoflex {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct FusedNorm : torch::autograd::Function<FusedNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const Rotation& rotation) {
    const NormResult result = norm_cpu(x.contiguous(), rotation, cpu::chosen_model_kernels());
    context->save_for_backward({result.y, result.scale, rotation.cos, rotation.sin});
    return result.y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor dx = norm_backward_cpu({saved[0], saved[1]}, gradients[0].contiguous(),
                                            {saved[2], saved[3]}, cpu::chosen_model_kernels());
    return differentiated_once(
        {dx, {}}, gradients,
        "[model] rms_norm has no second derivative; use rms_norm_reference, which has");
  }
};

struct FusedReluSquared : torch::autograd::Function<FusedReluSquared> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_any) {
    const at::Tensor x = x_any.contiguous();
    context->save_for_backward({x});
    return relu_squared_cpu(x, cpu::chosen_model_kernels());
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::Tensor dx = relu_squared_backward_cpu(
        context->get_saved_variables()[0], gradients[0].contiguous(), cpu::chosen_model_kernels());
    return differentiated_once(
        {dx}, gradients,
        "[model] relu_squared has no second derivative; use relu_squared_reference, which has");
  }
};

}  // namespace

at::Tensor rms_norm_reference(const at::Tensor& x) { return at::rms_norm(x, {x.size(-1)}); }

at::Tensor rms_norm(const at::Tensor& x) {
  return cpu::has_model_kernels(x) ? FusedNorm::apply(x, Rotation()) : rms_norm_reference(x);
}

at::Tensor project(const at::Tensor& x, const CastWeight& weight) {
  return at::linear(x, weight.in(x.scalar_type()));
}

at::Tensor relu_squared_reference(const at::Tensor& x) { return x.relu().square(); }

at::Tensor relu_squared(const at::Tensor& x) {
  return cpu::has_model_kernels(x) ? FusedReluSquared::apply(x) : relu_squared_reference(x);
}

Rotary::Rotary(int64_t length, int64_t head_dim, at::Device device) {
  constexpr double kBase = 10000;
  const auto fp32 = at::TensorOptions().dtype(at::kFloat).device(device);
  const at::Tensor channel = at::arange(0, head_dim, 2, fp32);
  const at::Tensor frequency = 1.0 / at::pow(kBase, channel / static_cast<double>(head_dim));
  const at::Tensor angle = at::outer(at::arange(length, fp32), frequency);
  const auto rounded = [](const at::Tensor& x) { return x.to(at::kBFloat16).to(at::kFloat); };
  table_ = {rounded(angle.cos()), rounded(angle.sin())};
}

Rotation Rotary::rotation(int64_t offset, int64_t T) const {
  return {table_.cos.narrow(0, offset, T), table_.sin.narrow(0, offset, T)};
}

at::Tensor Rotary::rotate(const at::Tensor& x, int64_t offset) const {
  const Rotation at_positions = rotation(offset, x.size(1));
  const at::Tensor cos = at_positions.cos.unsqueeze(1).to(x.scalar_type());
  const at::Tensor sin = at_positions.sin.unsqueeze(1).to(x.scalar_type());
  const std::vector<at::Tensor> half = x.chunk(2, -1);
  return at::cat({half[0] * cos + half[1] * sin, half[1] * cos - half[0] * sin}, -1);
}

at::Tensor Rotary::rotate_and_norm(const at::Tensor& x, int64_t offset) const {
  if (!cpu::has_model_kernels(x)) return rms_norm_reference(rotate(x, offset));
  return FusedNorm::apply(x, rotation(offset, x.size(1)));
}

}  // namespace nanoflex
