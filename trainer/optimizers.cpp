#include "trainer/optimizers.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <stdexcept>

#include "trainer/machine.h"

namespace nanoflex {
namespace {

constexpr double kMomentum = 0.95;
constexpr int kNewtonSchulzSteps = 5;

std::vector<at::Tensor> values(const Gpt& model, std::initializer_list<Role> roles) {
  std::vector<at::Tensor> result;
  for (const Parameter& parameter : model.parameters()) {
    if (std::find(roles.begin(), roles.end(), parameter.role) != roles.end()) {
      result.push_back(parameter.value);
    }
  }
  return result;
}

// Products of bf16 matrices, [n, rows, columns], summed in fp32 and rounded to bf16. CPUs without
// bf16 multiplication emulate it at a tenth of their fp32 speed, so there fp32 does the same sums.
at::Tensor bf16_products(const at::Tensor& a, const at::Tensor& b) {
  if (multiplies_bfloat16_fast(a.device())) return at::bmm(a, b);
  return at::bmm(a.to(at::kFloat), b.to(at::kFloat)).to(at::kBFloat16);
}

std::vector<at::Tensor> zeros_like(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& tensor : tensors) result.push_back(at::zeros_like(tensor.detach()));
  return result;
}

std::vector<at::Tensor> gradients(const std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& parameter : parameters) result.push_back(parameter.grad());
  return result;
}

}  // namespace

AdamW::AdamW(std::vector<at::Tensor> parameters)
    : parameters_(std::move(parameters)),
      mean_(zeros_like(parameters_)),
      square_(zeros_like(parameters_)) {
  for (const at::Tensor& parameter : parameters_) {
    steps_.push_back(at::zeros({}, parameter.options().dtype(at::kFloat)));
  }
}

template <class Rate>
void AdamW::update(const Rate& learning_rate) {
  const at::NoGradGuard no_grad;
  for (at::Tensor& count : steps_) count += 1;
  at::_fused_adamw_(parameters_, gradients(parameters_), mean_, square_, /*max_exp_avg_sqs=*/{},
                    steps_, learning_rate, /*beta1=*/0.8, /*beta2=*/0.95, /*weight_decay=*/0.0,
                    /*eps=*/1e-10, /*amsgrad=*/false, /*maximize=*/false);
  // Which LibTorch does not count as a change of the parameters.
  for (const at::Tensor& parameter : parameters_) parameter.unsafeGetTensorImpl()->bump_version();
}

void AdamW::step(double learning_rate) { update(learning_rate); }
void AdamW::step(const at::Tensor& learning_rate) { update(learning_rate); }

std::vector<KeptTensor> AdamW::kept() const {
  std::vector<KeptTensor> result;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    result.push_back({parameters_[i], "mean", mean_[i]});
    result.push_back({parameters_[i], "square", square_[i]});
    result.push_back({parameters_[i], "steps", steps_[i]});
  }
  return result;
}

at::Tensor orthogonalize(const at::Tensor& g) {
  const bool tall = g.size(1) > g.size(2);
  at::Tensor x = g.to(at::kBFloat16);
  if (tall) x = x.transpose(1, 2);
  x = x / (at::linalg_vector_norm(x, 2, {1, 2}, /*keepdim=*/true) + 1e-7);
  // The quintic of Jordan et al., whose slope at 0 is as steep as keeps singular values near 1.
  for (int i = 0; i < kNewtonSchulzSteps; ++i) {
    const at::Tensor a = bf16_products(x, x.transpose(1, 2));
    const at::Tensor b = -4.7750 * a + bf16_products(2.0315 * a, a);
    x = 3.4445 * x + bf16_products(b, x);
  }
  return tall ? x.transpose(1, 2) : x;
}

Muon::Muon(std::vector<at::Tensor> parameters) {
  std::map<std::vector<int64_t>, std::vector<at::Tensor>> by_shape;
  for (const at::Tensor& parameter : parameters) {
    by_shape[parameter.sizes().vec()].push_back(parameter);
  }
  for (auto& [shape, members] : by_shape) {
    const at::Tensor first = members.front().detach();
    const auto count = static_cast<int64_t>(members.size());
    groups_.push_back(
        {std::move(members), at::zeros({count, shape[0], shape[1]}, first.options())});
  }
}

template <class Add>
void Muon::update(const Add& add) {
  const at::NoGradGuard no_grad;
  for (Group& group : groups_) {
    const at::Tensor gradient = at::stack(gradients(group.parameters));
    group.momentum.lerp_(gradient, 1 - kMomentum);
    const at::Tensor update = orthogonalize(gradient.lerp(group.momentum, kMomentum));
    const double rows = static_cast<double>(update.size(1));
    const double columns = static_cast<double>(update.size(2));
    const double scale = std::sqrt(std::max(1.0, rows / columns));
    for (size_t i = 0; i < group.parameters.size(); ++i) {
      add(group.parameters[i], update[static_cast<int64_t>(i)], scale);
    }
  }
}

void Muon::step(double learning_rate) {
  update([&](at::Tensor& parameter, const at::Tensor& update, double scale) {
    parameter.add_(update, -learning_rate * scale);
  });
}

void Muon::step(const at::Tensor& learning_rate) {
  update([&](at::Tensor& parameter, const at::Tensor& update, double scale) {
    parameter.addcmul_(update, learning_rate, -scale);
  });
}

std::vector<KeptTensor> Muon::kept() const {
  std::vector<KeptTensor> result;
  for (const Group& group : groups_) {
    for (size_t i = 0; i < group.parameters.size(); ++i) {
      result.push_back({group.parameters[i], "momentum", group.momentum[static_cast<int64_t>(i)]});
    }
  }
  return result;
}

Optimizers::Optimizers(const Gpt& model, const LearningRates& rates)
    : parameters_(values(model, {Role::kEmbedding, Role::kMatrix, Role::kUnembedding})),
      rates_(rates),
      embedding_(values(model, {Role::kEmbedding})),
      unembedding_(values(model, {Role::kUnembedding})),
      matrices_(values(model, {Role::kMatrix})) {
  const double width_scale = 1 / std::sqrt(static_cast<double>(model.options().n_embd) / 768);
  rates_.embedding *= width_scale;
  rates_.unembedding *= width_scale;
  const at::Tensor& first = parameters_.front();
  if (first.is_cuda()) multiplier_on_gpu_ = at::ones({}, first.options().requires_grad(false));
  for (const Parameter& parameter : model.parameters()) {
    names_[parameter.value.unsafeGetTensorImpl()] = parameter.name;
  }
}

void Optimizers::step(double multiplier) {
  set_multiplier(multiplier);
  update();
}

void Optimizers::set_multiplier(double multiplier) {
  multiplier_ = multiplier;
  if (multiplier_on_gpu_.defined()) multiplier_on_gpu_.fill_(multiplier);
}

void Optimizers::update() {
  RECORD_USER_SCOPE(kOptimizerScope);
  const auto step_all = [&](const auto& multiplier) {
    embedding_.step(rates_.embedding * multiplier);
    unembedding_.step(rates_.unembedding * multiplier);
    matrices_.step(rates_.matrix * multiplier);
  };
  multiplier_on_gpu_.defined() ? step_all(multiplier_on_gpu_) : step_all(multiplier_);
}

void Optimizers::zero_gradients() {
  for (at::Tensor& parameter : parameters_) parameter.mutable_grad().reset();
}

at::Tensor Optimizers::clip_gradients(double largest) {
  RECORD_USER_SCOPE(kOptimizerScope);
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> all = gradients(parameters_);
  const at::Tensor norm = at::stack(at::_foreach_norm(all)).norm();
  if (largest > 0) {
    const at::Tensor factor = (largest / (norm + 1e-6)).clamp_max(1);
    at::_foreach_mul_(all, factor);
  }
  return norm;
}

std::map<std::string, at::Tensor> Optimizers::state() const {
  std::map<std::string, at::Tensor> result;
  for (const auto& kept : {embedding_.kept(), unembedding_.kept(), matrices_.kept()}) {
    for (const KeptTensor& tensor : kept) {
      result[names_.at(tensor.parameter.unsafeGetTensorImpl()) + "." + tensor.name] = tensor.value;
    }
  }
  return result;
}

void Optimizers::restore(const std::map<std::string, at::Tensor>& saved) {
  const std::map<std::string, at::Tensor> live = state();
  for (const auto& [name, value] : live) {
    const auto found = saved.find(name);
    std::ostringstream problem;
    if (found == saved.end()) {
      problem << "is missing";
    } else if (found->second.sizes() != value.sizes()) {
      problem << "must be " << value.sizes() << ", is " << found->second.sizes();
    } else if (found->second.scalar_type() != value.scalar_type()) {
      problem << "must be " << value.scalar_type() << ", is " << found->second.scalar_type();
    }
    if (!problem.str().empty()) {
      throw std::invalid_argument("[optimizer] the saved state does not fit this model: " + name +
                                  " " + problem.str());
    }
  }
  const at::NoGradGuard no_grad;
  for (const auto& [name, value] : live) at::Tensor(value).copy_(saved.at(name));
}

}  // namespace nanoflex
