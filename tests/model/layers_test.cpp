// What surrounds the products of a layer, fused, against plain tensors in fp64.
#include "model/layers.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <functional>
#include <stdexcept>

#include "model/cpu/dispatch.h"
#include "model/layers_cpu.h"
#include "tests/threads.h"

namespace nanoflex {
namespace {

struct Values {
  at::Tensor y, dx;
};

double error(const at::Tensor& x, const at::Tensor& truth) {
  return (x.to(at::kDouble) - truth.to(at::kDouble)).abs().max().item<double>();
}

// At most twice the error of the plain computation in the same type, and a unit in the last place.
void expect_as_exact(const Values& found, const Values& plain, const Values& truth,
                     at::ScalarType type) {
  const double unit = type == at::kFloat ? 0x1p-23 : 0x1p-7;
  for (const auto& [name, part] : {std::pair{"y", &Values::y}, {"dx", &Values::dx}}) {
    const double bound =
        2 * error(plain.*part, truth.*part) + unit * (truth.*part).abs().max().item<double>();
    EXPECT_TRUE(error(found.*part, truth.*part) <= bound)
        << name << ": " << error(found.*part, truth.*part) << " > " << bound;
  }
}

using Layer = std::function<at::Tensor(const at::Tensor&)>;

Values differentiate_layer(const Layer& layer, const at::Tensor& x, const at::Tensor& dy,
                           at::ScalarType type) {
  const at::Tensor leaf = x.to(type).detach().requires_grad_();
  const at::Tensor y = layer(leaf);
  return {y.detach(), torch::autograd::grad({y}, {leaf}, {dy.to(type)})[0]};
}

// Numbers that every dtype holds exactly, so that there is one truth.
at::Tensor random(at::IntArrayRef sizes) {
  return at::randn(sizes).to(at::kBFloat16).to(at::kDouble);
}

// Rows of whole vectors and of pieces, and enough of them for several threads.
TEST(Layers, NormIsItsDefinitionInEveryInstructionSet) {
  const Threads threads(4);
  at::manual_seed(1);
  for (const auto& sizes :
       std::vector<std::vector<int64_t>>{{3, 1}, {2, 5, 7}, {400, 50}, {9, 96}}) {
    const at::Tensor x = random(sizes), dy = random(sizes);
    const Values truth = differentiate_layer(rms_norm_reference, x, dy, at::kDouble);
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const Values plain = differentiate_layer(rms_norm_reference, x, dy, type);
      for (const cpu::ModelKernelSet& kernels : cpu::all_model_kernels()) {
        SCOPED_TRACE(c10::str(kernels.name, " ", type, " ", at::IntArrayRef(sizes)));
        const NormResult result = norm_cpu(x.to(type), {}, kernels);
        expect_as_exact({result.y, norm_backward_cpu(result, dy.to(type), {}, kernels)}, plain,
                        truth, type);
      }
      expect_as_exact(differentiate_layer(rms_norm, x, dy, type), plain, truth, type);
    }
  }
}

TEST(Layers, RotationAndNormAreTheirDefinitionInEveryInstructionSet) {
  const Threads threads(4);
  at::manual_seed(2);
  for (const int64_t D : {2, 10, 32, 48}) {
    const at::Tensor x = random({2, 30, 3, D}), dy = random({2, 30, 3, D});
    const Rotary rotary(40, D, at::kCPU);
    const Layer plainly = [&](const at::Tensor& any) {
      return rms_norm_reference(rotary.rotate(any, 7));
    };
    const Layer fused = [&](const at::Tensor& any) { return rotary.rotate_and_norm(any, 7); };
    const Values truth = differentiate_layer(plainly, x, dy, at::kDouble);
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      SCOPED_TRACE(c10::str(type, " ", D));
      const Values plain = differentiate_layer(plainly, x, dy, type);
      expect_as_exact(differentiate_layer(fused, x, dy, type), plain, truth, type);
      for (const cpu::ModelKernelSet& kernels : cpu::all_model_kernels()) {
        SCOPED_TRACE(kernels.name);
        const Rotation rotation = rotary.rotation(7, 30);
        const NormResult result = norm_cpu(x.to(type), rotation, kernels);
        expect_as_exact({result.y, norm_backward_cpu(result, dy.to(type), rotation, kernels)},
                        plain, truth, type);
      }
    }
  }
}

TEST(Layers, ReluSquaredIsItsDefinitionInEveryInstructionSet) {
  const Threads threads(4);
  at::manual_seed(3);
  const at::Tensor x = random({70, 701}), dy = random({70, 701});
  const Values truth = differentiate_layer(relu_squared_reference, x, dy, at::kDouble);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const Values plain = differentiate_layer(relu_squared_reference, x, dy, type);
    for (const cpu::ModelKernelSet& kernels : cpu::all_model_kernels()) {
      SCOPED_TRACE(c10::str(kernels.name, " ", type));
      expect_as_exact({relu_squared_cpu(x.to(type), kernels),
                       relu_squared_backward_cpu(x.to(type), dy.to(type), kernels)},
                      plain, truth, type);
    }
    expect_as_exact(differentiate_layer(relu_squared, x, dy, type), plain, truth, type);
  }
}

// Some columns of wider tensors, from within a soft cap's bend to far beyond it.
TEST(Layers, SoftCapIsItsDefinitionInEveryInstructionSet) {
  at::manual_seed(4);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = (20 * at::randn({70, 400})).to(type).narrow(1, 30, 301);
    const auto error_of = [&](const at::Tensor& y) {
      return (y - 15 * (x.to(at::kDouble) / 15).tanh()).abs().max().item<double>();
    };
    constexpr double kUlp = 9.6e-7;  // of 15 in fp32
    const double bound = 2 * error_of(15 * (x.to(at::kFloat) / 15).tanh()) + kUlp;
    for (const cpu::ModelKernelSet& kernels : cpu::all_model_kernels()) {
      SCOPED_TRACE(c10::str(kernels.name, " ", type));
      const at::Tensor all = at::full({70, 320}, -1.0F);
      soft_cap_cpu(x, 15, all.narrow(1, 7, 301), kernels);
      EXPECT_LE(error_of(all.narrow(1, 7, 301)), bound);
      EXPECT_TRUE(all.narrow(1, 0, 7).eq(-1).all().item<bool>());
      EXPECT_TRUE(all.narrow(1, 308, 12).eq(-1).all().item<bool>());
    }
  }
}

// A run that diverges must show it.
TEST(Layers, ReluSquaredOfNaNIsNaNInEveryInstructionSet) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::ones({37}, type), dy = at::ones({37}, type);
    x.narrow(0, 0, 20).fill_(std::nan(""));
    for (const cpu::ModelKernelSet& kernels : cpu::all_model_kernels()) {
      SCOPED_TRACE(c10::str(kernels.name, " ", type));
      EXPECT_TRUE(relu_squared_cpu(x, kernels).isnan().equal(x.isnan()));
      EXPECT_TRUE(relu_squared_backward_cpu(x, dy, kernels).isnan().equal(x.isnan()));
    }
  }
}

// It would pass for a constant.
TEST(Layers, RefuseASecondDerivativeWhereTheyAreFused) {
  const auto refused = [](const Layer& layer) -> std::string {
    const at::Tensor x = at::randn({4, 2, 1, 6}).transpose(0, 1).requires_grad_();
    const at::Tensor y = layer(x).square().sum();
    const at::Tensor first = torch::autograd::grad({y}, {x}, {}, {}, /*create_graph=*/true)[0];
    try {
      torch::autograd::grad({first.square().sum() + x.sum()}, {x});
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "";
  };
  const Rotary rotary(4, 6, at::kCPU);
  const auto rotated = [&](const at::Tensor& x) { return rotary.rotate_and_norm(x, 0); };
  const std::string norm =
      "[model] rms_norm has no second derivative; use rms_norm_reference, which has";
  EXPECT_EQ(refused(rms_norm), norm);
  EXPECT_EQ(refused(rotated), norm);
  EXPECT_EQ(refused(relu_squared),
            "[model] relu_squared has no second derivative; use relu_squared_reference, which has");
  EXPECT_EQ(refused(relu_squared_reference), "");
}

TEST(Layers, TakeStridedInputs) {
  const at::Tensor x = at::randn({6, 40}).t();
  EXPECT_TRUE(at::allclose(rms_norm(x), rms_norm_reference(x)));
  EXPECT_TRUE(at::allclose(relu_squared(x), relu_squared_reference(x)));
}

}  // namespace
}  // namespace nanoflex
