// The chunked head loss against its definition in plain tensors, in fp64.
#include "model/head.h"

#include <gtest/gtest.h>

namespace nanoflex {
namespace {

struct Inputs {
  at::Tensor x, weight, targets;
};

// Large enough a vocabulary that the rows are split over several chunks.
Inputs random_inputs(int64_t N, int64_t C, int64_t V) {
  at::manual_seed(11);
  const auto fp64 = at::TensorOptions().dtype(at::kDouble);
  Inputs inputs{at::randn({N, C}, fp64), at::randn({V, C}, fp64), at::randint(V, {N}, at::kLong)};
  inputs.targets.index_put_({at::arange(0, N, 3)}, -1);
  return inputs;
}

struct Gradients {
  at::Tensor loss, dx, dweight;
};

template <class Loss>
Gradients differentiate(Loss loss, const Inputs& inputs, at::ScalarType x_type,
                        at::ScalarType weight_type) {
  const at::Tensor x = inputs.x.detach().clone().to(x_type).requires_grad_();
  const at::Tensor weight = inputs.weight.detach().clone().to(weight_type).requires_grad_();
  const int64_t count = (inputs.targets != -1).sum().item<int64_t>();
  const at::Tensor value = loss(x, weight, inputs.targets, count);
  (value * 3).backward();  // an upstream gradient other than 1
  return {value.detach(), x.grad(), weight.grad()};
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

TEST(HeadLoss, IsItsDefinitionWithGradientsAcrossChunks) {
  const Inputs inputs = random_inputs(7, 5, 4'000'000);  // 3 rows a chunk
  const Gradients ours = differentiate(head_loss, inputs, at::kDouble, at::kDouble);
  const Gradients truth = differentiate(head_loss_reference, inputs, at::kDouble, at::kDouble);
  EXPECT_TRUE(difference(ours.loss, truth.loss) <= 1e-12);
  EXPECT_TRUE(difference(ours.dx, truth.dx) <= 1e-12);
  EXPECT_TRUE(difference(ours.dweight, truth.dweight) <= 1e-12);
}

TEST(HeadLoss, ErrsAtMostTwiceAsMuchAsThePlainComputation) {
  const Inputs inputs = random_inputs(40, 24, 300);
  const Gradients truth = differentiate(head_loss_reference, inputs, at::kDouble, at::kDouble);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const Gradients plain = differentiate(head_loss_reference, inputs, type, at::kFloat);
    const Gradients ours = differentiate(head_loss, inputs, type, at::kFloat);
    const double ulp = type == at::kFloat ? 1.2e-7 : 7.9e-3;
    const auto bounded = [&](at::Tensor Gradients::*part) {
      const double scale = (truth.*part).abs().max().item<double>();
      const double bound = 2 * difference(plain.*part, truth.*part) + ulp * scale;
      return difference(ours.*part, truth.*part) <= bound;
    };
    EXPECT_TRUE(bounded(&Gradients::loss)) << type;
    EXPECT_TRUE(bounded(&Gradients::dx)) << type;
    EXPECT_TRUE(bounded(&Gradients::dweight)) << type;
  }
}

TEST(HeadLoss, IgnoredTargetsHaveNoLossAndNoGradient) {
  Inputs inputs = random_inputs(6, 4, 10);
  inputs.targets.fill_(-1);
  inputs.targets[2] = 5;
  const Gradients g = differentiate(head_loss, inputs, at::kDouble, at::kDouble);
  for (int64_t row = 0; row < 6; ++row) {
    EXPECT_EQ(g.dx[row].abs().sum().item<double>() > 0, row == 2) << row;
  }
  const at::Tensor losses = head_token_losses(inputs.x, inputs.weight, inputs.targets);
  EXPECT_TRUE(difference(losses.sum(), g.loss) <= 1e-12);
  EXPECT_EQ((losses != 0).sum().item<int64_t>(), 1);
}

TEST(HeadLoss, LogitsAreCappedAtFifteen) {
  const at::Tensor x = at::full({1, 1}, 1000.0),
                   weight = at::tensor({1.0, -1.0, 0.001}).unsqueeze(1);
  const at::Tensor logits = head_logits(x, weight.to(at::kFloat));
  EXPECT_TRUE(difference(logits[0].narrow(0, 0, 2), at::tensor({15.0, -15.0})) < 1e-5);
  EXPECT_TRUE(std::abs(logits[0][2].item<double>() - 15 * std::tanh(1 / 15.0)) < 1e-5);
}

}  // namespace
}  // namespace nanoflex
