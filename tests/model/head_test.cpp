// The head's loss against its definition in plain tensors, in fp64.
#include "model/head.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorIndexing.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/cpu/dispatch.h"
#include "model/head_cpu.h"

namespace nanoflex {
namespace {

struct Inputs {
  at::Tensor x, weight, targets;
  int64_t count() const { return (targets != -1).sum().item<int64_t>(); }
};

Inputs random_inputs(int64_t N, int64_t C, int64_t V) {
  at::manual_seed(11);
  // Numbers that every dtype holds exactly, so that there is one truth.
  const auto random = [](at::IntArrayRef sizes) {
    return at::randn(sizes).to(at::kBFloat16).to(at::kDouble);
  };
  Inputs inputs{random({N, C}), random({V, C}), at::randint(V, {N}, at::kLong)};
  inputs.targets.index_put_({at::arange(0, N, 3)}, -1);
  return inputs;
}

struct Gradients {
  at::Tensor loss, dx, dweight;
};

template <class Loss>
Gradients differentiate(Loss loss, const Inputs& inputs, at::ScalarType x_type,
                        at::ScalarType weight_type, double z_loss = 0) {
  const at::Tensor x = inputs.x.detach().clone().to(x_type).requires_grad_();
  const at::Tensor weight = inputs.weight.detach().clone().to(weight_type).requires_grad_();
  const HeadLossOptions options = {.count = std::max<int64_t>(1, inputs.count()), .z_loss = z_loss};
  const at::Tensor value = loss(x, weight, inputs.targets, options);
  (value * 3).backward();  // an upstream gradient other than 1
  return {value.detach(), x.grad(), weight.grad()};
}

double head_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kCPU, at::kDouble) - b.to(at::kCPU, at::kDouble)).abs().max().item<double>();
}

void expect_within_twice(const Gradients& ours, const Gradients& plain, const Gradients& truth,
                         at::ScalarType type) {
  constexpr double kFloatUlp = 1.2e-7;
  const double ulp = type == at::kFloat ? kFloatUlp : type == at::kHalf ? 9.8e-4 : 7.9e-3;
  const auto check = [&](at::Tensor Gradients::*part, double ulp, double scale, const char* name) {
    const double error = head_difference(ours.*part, truth.*part);
    const double bound = 2 * head_difference(plain.*part, truth.*part) + ulp * scale;
    EXPECT_TRUE(error <= bound) << name << " in " << type << ": " << error << " > " << bound;
  };
  // A loss is the difference of a logsumexp and a logit, both in fp32.
  check(&Gradients::loss, kFloatUlp, kLogitSoftcap, "loss");
  check(&Gradients::dx, ulp, truth.dx.abs().max().item<double>(), "dx");
  check(&Gradients::dweight, ulp, truth.dweight.abs().max().item<double>(), "dweight");
}

// "" where nothing is refused.
template <class Action>
std::string head_refusal(const Action& action) {
  try {
    action();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

TEST(HeadLoss, IsItsDefinitionWithGradientsAcrossChunks) {
  const Inputs inputs = random_inputs(7, 5, 4'000'000);  // 3 rows a chunk
  const Gradients ours = differentiate(head_loss, inputs, at::kDouble, at::kDouble);
  const Gradients truth = differentiate(head_loss_reference, inputs, at::kDouble, at::kDouble);
  EXPECT_TRUE(head_difference(ours.loss, truth.loss) <= 1e-12);
  EXPECT_TRUE(head_difference(ours.dx, truth.dx) <= 1e-12);
  EXPECT_TRUE(head_difference(ours.dweight, truth.dweight) <= 1e-12);
}

TEST(HeadLoss, ErrsAtMostTwiceAsMuchAsThePlainComputation) {
  const Inputs inputs = random_inputs(40, 24, 300);
  for (const double z_loss : {0.0, 0.01}) {
    const auto run = [&](auto loss, at::ScalarType type, at::ScalarType weight_type) {
      return differentiate(loss, inputs, type, weight_type, z_loss);
    };
    const Gradients truth = run(head_loss_reference, at::kDouble, at::kDouble);
    const Gradients in_fp64 = run(head_loss, at::kDouble, at::kDouble);
    EXPECT_TRUE(head_difference(in_fp64.loss, truth.loss) <= 1e-12);
    EXPECT_TRUE(head_difference(in_fp64.dx, truth.dx) <= 1e-12);
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      expect_within_twice(run(head_loss, type, at::kFloat),
                          run(head_loss_reference, type, at::kFloat), truth, type);
    }
  }
}

// Several chunks of rows, sections and tiles that nothing fills, and sizes that are odd.
TEST(HeadLoss, ErrsAtMostTwiceAsMuchInEveryInstructionSet) {
  struct Shape {
    int64_t N, C, V;
  };
  for (const Shape& shape : {Shape{1, 2, 1},
                             {5, 7, 97},
                             {523, 40, 201},
                             {20, 300, 150},
                             {300, 130, 3200},
                             {20, 16, 9500},
                             {5, 7, 20000},
                             {300, 260, 150}}) {
    SCOPED_TRACE(std::to_string(shape.N) + " x " + std::to_string(shape.C) + " x " +
                 std::to_string(shape.V));
    const Inputs inputs = random_inputs(shape.N, shape.C, shape.V);
    const Gradients truth = differentiate(head_loss_reference, inputs, at::kDouble, at::kDouble);
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const Gradients plain = differentiate(head_loss_reference, inputs, type, type);
      for (const cpu::ModelKernelSet& kernels : cpu::all_model_kernels()) {
        SCOPED_TRACE(kernels.name);
        const double factor = 1.0 / static_cast<double>(std::max<int64_t>(1, inputs.count()));
        const HeadResult result = head_cpu(inputs.x.to(type), inputs.weight.to(type),
                                           inputs.targets, {.factor = factor}, kernels);
        const at::Tensor loss = result.losses.sum() * factor;
        expect_within_twice({loss, result.dx * 3, result.dweight * 3}, plain, truth, type);
      }
    }
  }
}

// tests/simt runs the GPU's kernel anywhere.
TEST(HeadLossCuda, ErrsAtMostTwiceAsMuchAsThePlainComputation) {
  if (!at::hasCUDA()) GTEST_SKIP() << "there is no GPU here";
  for (const int64_t V : {1, 97, 1000, 50304}) {  // the last in two chunks
    const Inputs inputs = random_inputs(700, 24, V);
    const Inputs there = {inputs.x.cuda(), inputs.weight.cuda(), inputs.targets.cuda()};
    const Gradients truth = differentiate(head_loss_reference, inputs, at::kDouble, at::kDouble);
    for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16}) {
      SCOPED_TRACE(std::to_string(V));
      const Gradients ours = differentiate(head_loss, there, type, at::kFloat);
      expect_within_twice(ours, differentiate(head_loss_reference, there, type, at::kFloat), truth,
                          type);
      const Gradients again = differentiate(head_loss, there, type, at::kFloat);
      EXPECT_TRUE(ours.loss.equal(again.loss));
      EXPECT_TRUE(ours.dx.equal(again.dx));
      EXPECT_TRUE(ours.dweight.equal(again.dweight));
    }
  }
}

TEST(HeadLoss, HasTheSameBitsForAnyNumberOfThreads) {
  const Inputs inputs = random_inputs(300, 16, 4000);
  const auto run = [&](int threads) {
    const int before = at::get_num_threads();
    at::set_num_threads(threads);
    const Gradients result = differentiate(head_loss, inputs, at::kFloat, at::kFloat);
    at::set_num_threads(before);
    return result;
  };
  const Gradients one = run(1), four = run(4);
  EXPECT_TRUE(one.loss.equal(four.loss));
  EXPECT_TRUE(one.dx.equal(four.dx));
  EXPECT_TRUE(one.dweight.equal(four.dweight));
}

// A model that is sure and right: weights of nearly 1, which must not lose the rest.
TEST(HeadLoss, KeepsSmallGradientsOfSureRows) {
  Inputs inputs = random_inputs(30, 24, 300);
  inputs.weight.index_put_({inputs.targets.clamp_min(0)}, inputs.x * 3);
  const Gradients truth = differentiate(head_loss_reference, inputs, at::kDouble, at::kDouble);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    expect_within_twice(differentiate(head_loss, inputs, type, at::kFloat),
                        differentiate(head_loss_reference, inputs, type, at::kFloat), truth, type);
  }
}

TEST(HeadLoss, IgnoredTargetsHaveNoLossAndNoGradient) {
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    Inputs inputs = random_inputs(6, 4, 10);
    inputs.targets.fill_(-1);
    inputs.targets[2] = 5;
    const Gradients g = differentiate(head_loss, inputs, type, type);
    for (int64_t row = 0; row < 6; ++row) {
      EXPECT_EQ(g.dx[row].abs().sum().item<double>() > 0, row == 2) << row;
    }
    const at::Tensor losses =
        head_token_losses(inputs.x.to(type), inputs.weight.to(type), inputs.targets);
    EXPECT_TRUE(head_difference(losses.sum(), g.loss) <= 1e-12);
    EXPECT_EQ((losses != 0).sum().item<int64_t>(), 1);
  }
}

TEST(HeadLoss, RefusesTargetsOutsideOfTheVocabulary) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const at::Tensor x = at::randn({3, 4}, type), weight = at::randn({5, 4}, type);
    for (const int64_t wrong : {int64_t{5}, int64_t{-2}}) {
      const at::Tensor targets = at::tensor({int64_t{0}, wrong, int64_t{-1}});
      EXPECT_EQ(head_refusal([&] { head_loss(x, weight, targets, {}); }),
                "[model] targets must be -1 or tokens below vocab_size 5, one is " +
                    std::to_string(wrong));
    }
  }
}

TEST(HeadLoss, RefusesShapesThatDoNotFit) {
  const auto message = [](at::IntArrayRef x, at::IntArrayRef weight, at::IntArrayRef targets) {
    return head_refusal(
        [&] { head_token_losses(at::zeros(x), at::zeros(weight), at::zeros(targets, at::kLong)); });
  };
  const std::string takes =
      "[model] the head takes x [N, C], weight [V, C] with V >= 1 and targets [N], is given ";
  EXPECT_EQ(message({3, 4}, {5, 4}, {3}), "");
  EXPECT_EQ(message({3, 4}, {5, 4}, {2}), takes + "[3, 4], [5, 4] and [2]");
  EXPECT_EQ(message({3, 4}, {5, 6}, {3}), takes + "[3, 4], [5, 6] and [3]");
  EXPECT_EQ(message({3, 4}, {5, 4}, {3, 1}), takes + "[3, 4], [5, 4] and [3, 1]");
  EXPECT_EQ(message({1, 3, 4}, {5, 4}, {1}), takes + "[1, 3, 4], [5, 4] and [1]");
  EXPECT_EQ(message({3, 4}, {0, 4}, {3}), takes + "[3, 4], [0, 4] and [3]");
}

TEST(HeadLoss, NoRowsHaveNoLossAndNoGradient) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const at::Tensor weight = at::randn({5, 4}, type).requires_grad_();
    const at::Tensor loss =
        head_loss(at::randn({0, 4}, type), weight, at::zeros({0}, at::kLong), {});
    loss.backward();
    EXPECT_EQ(loss.item<double>(), 0);
    EXPECT_EQ(weight.grad().abs().max().item<double>(), 0);
  }
}

TEST(HeadLoss, RefusesASecondBackwardPass) {
  const at::Tensor x = at::randn({3, 4}).requires_grad_();
  const at::Tensor loss = head_loss(x, at::randn({5, 4}), at::zeros({3}, at::kLong), {});
  loss.backward({}, /*retain_graph=*/true);
  EXPECT_EQ(head_refusal([&] { loss.backward(); }),
            "[model] head_loss can be differentiated once only");
}

// Of a penalty on a gradient, say: it would pass for a constant.
TEST(HeadLoss, RefusesASecondDerivative) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const at::Tensor x = at::randn({3, 4}, type).requires_grad_();
    const at::Tensor loss = head_loss(x, at::randn({5, 4}, type), at::zeros({3}, at::kLong), {});
    const at::Tensor first = torch::autograd::grad({loss}, {x}, {}, {}, /*create_graph=*/true)[0];
    EXPECT_EQ(head_refusal([&] { torch::autograd::grad({first.square().sum() + x.sum()}, {x}); }),
              "[model] head_loss has no second derivative; use head_loss_reference, which has");
  }
}

TEST(HeadLoss, LogitsAreCappedAtFifteen) {
  const at::Tensor x = at::full({1, 1}, 1000.0),
                   weight = at::tensor({1.0, -1.0, 0.001}).unsqueeze(1);
  const at::Tensor logits = head_logits(x, weight.to(at::kFloat));
  EXPECT_TRUE(head_difference(logits[0].narrow(0, 0, 2), at::tensor({15.0, -15.0})) < 1e-5);
  EXPECT_TRUE(std::abs(logits[0][2].item<double>() - 15 * std::tanh(1 / 15.0)) < 1e-5);
}

// 2,048 rows meet the vocabulary a thousand tokens at a time, unless a gradient will be asked for.
TEST(HeadLoss, LogitsAreTheSameWithAndWithoutGradients) {
  at::manual_seed(0);
  const at::Tensor x = at::randn({2048, 16}), weight = at::randn({2500, 16});
  const at::Tensor truth = 15 * (at::mm(x.to(at::kDouble), weight.to(at::kDouble).t()) / 15).tanh();
  const at::Tensor tracked = weight.clone().requires_grad_();
  EXPECT_LT(head_difference(head_logits(x, weight), truth), 1e-5);
  EXPECT_LT(head_difference(head_logits(x, tracked), truth), 1e-5);
  EXPECT_TRUE(head_logits(x, tracked).requires_grad());
  EXPECT_EQ(head_logits(x.narrow(0, 0, 0), weight).numel(), 0);
}

}  // namespace
}  // namespace nanoflex
