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

#include "model/cpu/dispatch.h"
#include "trainer/machine.h"
#include "trainer/updates_cpu.h"

namespace nanoflex {
namespace {

constexpr double kMeanDecay = 0.8, kSquareDecay = 0.95, kEpsilon = 1e-10;  // of AdamW
constexpr double kMomentum = 0.95;                                         // of Muon
constexpr int kNewtonSchulzSteps = 5;

std::vector<CastWeight> weights_of(const Gpt& model, std::initializer_list<Role> roles) {
  std::vector<CastWeight> result;
  for (const Parameter& parameter : model.parameters()) {
    if (std::find(roles.begin(), roles.end(), parameter.role) != roles.end()) {
      result.push_back(parameter.weight);
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

// left right^T, where that is symmetric but for rounding. On a CPU large ones are multiplied on and
// below the diagonal, strip by strip, and mirrored.
at::Tensor symmetric_products(const at::Tensor& left, const at::Tensor& right) {
  constexpr int64_t kStrip = 256;
  const int64_t rows = left.size(1);
  if (!left.is_cpu() || rows <= kStrip) return bf16_products(left, right.transpose(1, 2));
  const auto dtype = multiplies_bfloat16_fast(left.device()) ? at::kBFloat16 : at::kFloat;
  const at::Tensor a = left.to(dtype), b = right.to(dtype);
  const at::Tensor products = at::empty({left.size(0), rows, rows}, a.options());
  for (int64_t first = 0; first < rows; first += kStrip) {
    const int64_t count = std::min(kStrip, rows - first), last = first + count;
    for (int64_t i = 0; i < a.size(0); ++i) {
      at::Tensor strip = products[i].narrow(0, first, count).narrow(1, 0, last);
      at::mm_out(strip, a[i].narrow(0, first, count), b[i].narrow(0, 0, last).t());
    }
    const at::Tensor below = products.narrow(1, first, count).narrow(2, 0, first);
    products.narrow(1, 0, first).narrow(2, first, count).copy_(below.transpose(1, 2));
  }
  return products.to(at::kBFloat16);
}

std::vector<at::Tensor> values(const std::vector<CastWeight>& weights) {
  std::vector<at::Tensor> result;
  for (const CastWeight& weight : weights) result.push_back(weight.value());
  return result;
}

std::vector<at::Tensor> zeros_like(const std::vector<CastWeight>& weights) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& value : values(weights)) result.push_back(at::zeros_like(value.detach()));
  return result;
}

// Rows of sparse ones stand in order and once each from here on. What the loss does not depend on,
// such as a learned tensor under floor(), has none: zeros.
std::vector<at::Tensor> gradients(const std::vector<CastWeight>& weights) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& value : values(weights)) {
    at::Tensor& gradient = value.mutable_grad();
    if (!gradient.defined()) gradient = at::zeros_like(value.detach());
    if (gradient.is_sparse()) gradient = gradient.coalesce();
    result.push_back(gradient);
  }
  return result;
}

cpu::AdamWFactors adamw_factors(double learning_rate, double steps) {
  return {.mean_weight = static_cast<float>(1 - kMeanDecay),
          .square_decay = static_cast<float>(kSquareDecay),
          .square_weight = static_cast<float>(1 - kSquareDecay),
          .rate = static_cast<float>(learning_rate / (1 - std::pow(kMeanDecay, steps))),
          .root_scale = static_cast<float>(1 / std::sqrt(1 - std::pow(kSquareDecay, steps))),
          .epsilon = static_cast<float>(kEpsilon)};
}

}  // namespace

AdamW::AdamW(std::vector<CastWeight> weights)
    : weights_(std::move(weights)), mean_(zeros_like(weights_)), square_(zeros_like(weights_)) {
  for (const CastWeight& weight : weights_) {
    steps_.push_back(at::zeros({}, weight.value().options().dtype(at::kFloat)));
  }
}

void AdamW::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  if (!steps_.front().is_cpu()) return step(at::full({}, learning_rate, steps_.front().options()));
  const std::vector<at::Tensor> gradient = gradients(weights_);
  std::vector<AdamWTensor> tensors;
  for (size_t i = 0; i < weights_.size(); ++i) {
    steps_[i] += 1;
    tensors.push_back({.value = weights_[i].value(),
                       .mean = mean_[i],
                       .square = square_[i],
                       .gradient = gradient[i],
                       .copy = weights_[i].bfloat16_copy(),
                       .factors = adamw_factors(learning_rate, steps_[i].item<double>())});
  }
  adamw_cpu(tensors, cpu::chosen_model_kernels());
  for (const CastWeight& weight : weights_) weight.written();
}

void AdamW::step(const at::Tensor& learning_rate) {
  const at::NoGradGuard no_grad;
  for (at::Tensor& count : steps_) count += 1;
  at::_fused_adamw_(values(weights_), gradients(weights_), mean_, square_, /*max_exp_avg_sqs=*/{},
                    steps_, learning_rate, kMeanDecay, kSquareDecay, /*weight_decay=*/0.0, kEpsilon,
                    /*amsgrad=*/false, /*maximize=*/false);
  for (const CastWeight& weight : weights_) weight.renew_copy();
}

std::vector<KeptTensor> AdamW::kept() const {
  std::vector<KeptTensor> result;
  for (size_t i = 0; i < weights_.size(); ++i) {
    result.push_back({weights_[i].value(), "mean", mean_[i]});
    result.push_back({weights_[i].value(), "square", square_[i]});
    result.push_back({weights_[i].value(), "steps", steps_[i]});
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
    const at::Tensor a = symmetric_products(x, x);
    const at::Tensor b = -4.7750 * a + symmetric_products(2.0315 * a, a);
    x = 3.4445 * x + bf16_products(b, x);
  }
  return tall ? x.transpose(1, 2) : x;
}

Muon::Muon(const std::vector<CastWeight>& weights) {
  std::map<std::vector<int64_t>, std::vector<CastWeight>> by_shape;
  for (const CastWeight& weight : weights) by_shape[weight.value().sizes().vec()].push_back(weight);
  for (auto& [shape, members] : by_shape) {
    const at::Tensor first = members.front().value().detach();
    const auto count = static_cast<int64_t>(members.size());
    groups_.push_back(
        {std::move(members), at::zeros({count, shape[0], shape[1]}, first.options())});
  }
}

void Muon::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  for (const Group& group : groups_) {
    if (!group.momentum.is_cpu()) {
      update(group, at::full({}, learning_rate, group.momentum.options()));
      continue;
    }
    const cpu::ModelKernelSet& kernels = cpu::chosen_model_kernels();
    const at::Tensor direction =
        take_momentum_cpu(group.momentum, gradients(group.weights), 1 - kMomentum, kernels);
    move_cpu(group.weights, orthogonalize(direction), learning_rate * scale_of(group), kernels);
  }
}

void Muon::step(const at::Tensor& learning_rate) {
  const at::NoGradGuard no_grad;
  for (const Group& group : groups_) update(group, learning_rate);
}

void Muon::update(const Group& group, const at::Tensor& learning_rate) {
  const at::Tensor gradient = at::stack(gradients(group.weights));
  group.momentum.lerp_(gradient, 1 - kMomentum);
  const at::Tensor direction = orthogonalize(gradient.lerp(group.momentum, kMomentum));
  for (size_t i = 0; i < group.weights.size(); ++i) {
    at::Tensor value = group.weights[i].value();
    value.addcmul_(direction[static_cast<int64_t>(i)], learning_rate, -scale_of(group));
    group.weights[i].renew_copy();
  }
}

double Muon::scale_of(const Group& group) {
  const auto rows = static_cast<double>(group.momentum.size(1));
  const auto columns = static_cast<double>(group.momentum.size(2));
  return std::sqrt(std::max(1.0, rows / columns));
}

std::vector<KeptTensor> Muon::kept() const {
  std::vector<KeptTensor> result;
  for (const Group& group : groups_) {
    for (size_t i = 0; i < group.weights.size(); ++i) {
      result.push_back(
          {group.weights[i].value(), "momentum", group.momentum[static_cast<int64_t>(i)]});
    }
  }
  return result;
}

Optimizers::Optimizers(const Gpt& model, const LearningRates& rates)
    : weights_(weights_of(model, {Role::kEmbedding, Role::kMatrix, Role::kUnembedding})),
      rates_(rates),
      embedding_(weights_of(model, {Role::kEmbedding})),
      unembedding_(weights_of(model, {Role::kUnembedding})),
      matrices_(weights_of(model, {Role::kMatrix})) {
  const double width_scale = 1 / std::sqrt(static_cast<double>(model.options().n_embd) / 768);
  rates_.embedding *= width_scale;
  rates_.unembedding *= width_scale;
  const at::Tensor& first = weights_.front().value();
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
  for (const at::Tensor& value : values(weights_)) value.mutable_grad().reset();
}

at::Tensor Optimizers::clip_gradients(double largest) {
  RECORD_USER_SCOPE(kOptimizerScope);
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> all = gradients(weights_);
  for (at::Tensor& gradient : all) {
    if (gradient.is_sparse()) gradient = gradient._values();  // the rest of it is zero
  }
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
