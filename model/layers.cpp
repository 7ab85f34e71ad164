#include "model/layers.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/rms_norm.h>

namespace nanoflex {

at::Tensor rms_norm(const at::Tensor& x) { return at::rms_norm(x, {x.size(-1)}); }

at::Tensor project(const at::Tensor& x, const at::Tensor& weight) {
  return at::linear(x, weight.to(x.scalar_type()));
}

at::Tensor relu_squared(const at::Tensor& x) { return x.relu().square(); }

Rotary::Rotary(int64_t length, int64_t head_dim, at::Device device) {
  constexpr double kBase = 10000;
  const auto fp32 = at::TensorOptions().dtype(at::kFloat).device(device);
  const at::Tensor channel = at::arange(0, head_dim, 2, fp32);
  const at::Tensor frequency = 1.0 / at::pow(kBase, channel / static_cast<double>(head_dim));
  const at::Tensor angle = at::outer(at::arange(length, fp32), frequency);  // [length, D / 2]
  const auto rounded = [](const at::Tensor& x) {
    return x.to(at::kBFloat16).to(at::kFloat).unsqueeze(0).unsqueeze(2);
  };
  cos_ = rounded(angle.cos());
  sin_ = rounded(angle.sin());
}

at::Tensor Rotary::rotate(const at::Tensor& x, int64_t offset) const {
  const at::Tensor cos = cos_.narrow(1, offset, x.size(1)).to(x.scalar_type());
  const at::Tensor sin = sin_.narrow(1, offset, x.size(1)).to(x.scalar_type());
  const std::vector<at::Tensor> half = x.chunk(2, -1);
  return at::cat({half[0] * cos + half[1] * sin, half[1] * cos - half[0] * sin}, -1);
}

}  // namespace nanoflex
