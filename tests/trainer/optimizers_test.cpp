// Optimizers, schedule and FLOPs arithmetic against their definitions.
#include "trainer/optimizers.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "attention/flex/masks.h"
#include "trainer/budget.h"

namespace nanoflex {
namespace {

TEST(AdamW, FollowsItsEquationsIncludingRowsWithoutGradient) {
  at::manual_seed(1);
  const at::Tensor parameter = at::randn({6, 5});
  at::Tensor truth = parameter.to(at::kDouble), mean = at::zeros_like(truth);
  at::Tensor square = at::zeros_like(truth);
  AdamW optimizer({parameter});
  for (int step = 1; step <= 20; ++step) {
    at::Tensor gradient = at::randn({6, 5});
    gradient[step % 6].zero_();
    at::Tensor(parameter).mutable_grad() = gradient;
    optimizer.step(0.01);
    const at::Tensor g = gradient.to(at::kDouble);
    mean = 0.8 * mean + 0.2 * g;
    square = 0.95 * square + 0.05 * g * g;
    const at::Tensor corrected_mean = mean / (1 - std::pow(0.8, step));
    const at::Tensor corrected_square = square / (1 - std::pow(0.95, step));
    truth = truth - 0.01 * corrected_mean / (corrected_square.sqrt() + 1e-10);
  }
  EXPECT_TRUE((parameter - truth).abs().max().item<double>() < 2e-6);
}

TEST(Muon, MovesEverySingularValueNearOne) {
  at::manual_seed(2);
  for (const auto& [rows, columns] : {std::pair{32, 32}, {64, 16}, {16, 64}}) {
    const at::Tensor batch = orthogonalize(at::randn({3, rows, columns})).to(at::kDouble);
    const at::Tensor x = batch[1];
    const at::Tensor squares = rows > columns ? at::mm(x.t(), x) : at::mm(x, x.t());
    const double trace = squares.trace().item<double>() / std::min(rows, columns);
    // The quintic leaves singular values between about 0.7 and 1.2, so their squares average
    // near 1.
    EXPECT_TRUE(trace > 0.6 && trace < 1.4) << rows << "x" << columns << ": " << trace;
    EXPECT_EQ(x.size(0), rows);
  }
}

// Against the update written out in fp64 with the same quintic; bf16 steps allow a few per cent.
TEST(Muon, FollowsItsEquations) {
  at::manual_seed(3);
  for (const int64_t size : {8, 290}) {  // the latter's products are mirrored
    const int64_t rows = size + 16;
    const at::Tensor parameter = at::randn({rows, size});
    at::Tensor truth = parameter.to(at::kDouble), momentum = at::zeros_like(truth);
    Muon optimizer({parameter});
    const double rate = 0.1 * std::sqrt(static_cast<double>(rows) / static_cast<double>(size));
    double moved = 0;
    for (int step = 0; step < 4; ++step) {
      const at::Tensor gradient = at::randn({rows, size});
      at::Tensor(parameter).mutable_grad() = gradient;
      optimizer.step(0.1);
      momentum = 0.95 * momentum + 0.05 * gradient.to(at::kDouble);
      at::Tensor x = (0.05 * gradient.to(at::kDouble) + 0.95 * momentum).t();
      x = x / x.norm();
      for (int i = 0; i < 5; ++i) {
        const at::Tensor a = at::mm(x, x.t());
        x = 3.4445 * x + at::mm(-4.7750 * a + 2.0315 * at::mm(a, a), x);
      }
      truth = truth - rate * x.t();
      moved += rate * x.norm().item<double>();
    }
    EXPECT_LT((parameter - truth).norm().item<double>(), 0.03 * moved) << size;
  }
}

TEST(Muon, AMatrixDoesNotDependOnTheOthersOfItsBatch) {
  at::manual_seed(5);
  for (const int64_t size : {24, 290, 600}) {
    const at::Tensor gradients = at::randn({3, size, size + 10}), all = orthogonalize(gradients);
    for (int64_t i = 0; i < 3; ++i) {
      const at::Tensor alone = orthogonalize(gradients.narrow(0, i, 1))[0];
      EXPECT_LT((all[i] - alone).norm().item<double>(), 0.03 * alone.norm().item<double>())
          << size << ", " << i;
    }
  }
}

// As a recorded step's updates read it.
TEST(Optimizers, ARateInMemoryIsTheSameRate) {
  at::manual_seed(4);
  const at::Tensor start = at::randn({24, 8}), rate = at::zeros({});
  const at::Tensor by_number = start.clone(), by_memory = start.clone();
  const auto agree = [&](auto&& number, auto&& memory) {
    for (const double value : {0.1, 0.02}) {
      at::Tensor(by_number).mutable_grad() = at::randn({24, 8});
      at::Tensor(by_memory).mutable_grad() = by_number.grad().clone();
      number.step(value);
      rate.fill_(value);
      memory.step(rate);
    }
    return (by_number - by_memory).abs().max().item<double>() <= 1e-6;
  };
  EXPECT_TRUE(agree(AdamW({by_number}), AdamW({by_memory})));
  EXPECT_TRUE(agree(Muon({by_number}), Muon({by_memory})));
}

TEST(Optimizers, ClippingScalesToTheLargestNorm) {
  const Gpt model(
      {.n_layer = 1, .n_head = 1, .n_kv_head = 1, .n_embd = 8, .sequence_len = 4, .vocab_size = 16},
      1, at::kCPU, at::kFloat);
  Optimizers optimizers(model, {});
  double squares = 0;
  for (const Parameter& p : model.parameters()) {
    at::Tensor(p.value).mutable_grad() = at::full_like(p.value, 0.5);
    squares += 0.25 * static_cast<double>(p.value.numel());
  }
  const auto norm = [&] { return optimizers.clip_gradients(0).item<double>(); };
  EXPECT_NEAR(norm(), std::sqrt(squares), 1e-4);
  EXPECT_NEAR(optimizers.clip_gradients(1).item<double>(), std::sqrt(squares), 1e-4);
  EXPECT_NEAR(norm(), 1, 1e-4);
  optimizers.clip_gradients(5);  // already shorter: unchanged
  EXPECT_NEAR(norm(), 1, 1e-4);
}

// A learned tensor may be read where no gradient reaches it, as in floor(slope[h]).
TEST(Optimizers, AParameterWithoutAGradientStaysAsItIs) {
  const Gpt model(
      {.n_layer = 1, .n_head = 1, .n_kv_head = 1, .n_embd = 8, .sequence_len = 4, .vocab_size = 16},
      1, at::kCPU, at::kFloat);
  Optimizers optimizers(model, {});
  std::vector<at::Tensor> before;
  for (const Parameter& p : model.parameters()) before.push_back(p.value.detach().clone());
  const size_t last = before.size() - 1;
  at::Tensor(model.parameters()[last].value).mutable_grad() = at::full_like(before[last], 0.5);
  const double norm = 0.5 * std::sqrt(static_cast<double>(before[last].numel()));
  EXPECT_NEAR(optimizers.clip_gradients(1).item<double>(), norm, 1e-4);
  optimizers.step(1);
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(at::equal(model.parameters()[i].value, before[i]), i != last)
        << model.parameters()[i].name;
  }
}

// The loss of some tokens, and by then every gradient of it.
at::Tensor differentiated_loss(const Gpt& model, const at::Tensor& tokens) {
  for (const Parameter& p : model.parameters()) at::Tensor(p.value).mutable_grad().reset();
  const AttentionChoice attention{.backend = "vanilla", .spec = {.mask = flex::causal()}};
  const at::Tensor loss = model.loss(tokens, tokens, attention, {.count = tokens.numel()});
  loss.backward();
  return loss.detach();
}

// The bf16 copies that optimizers write are those that casting at each use would make.
TEST(Optimizers, ATrainedModelComputesAsOneMadeAnewFromItsWeights) {
  const GptOptions tiny{
      .n_layer = 2, .n_head = 2, .n_kv_head = 1, .n_embd = 24, .sequence_len = 8, .vocab_size = 50};
  const Gpt model(tiny, 1, at::kCPU, at::kBFloat16);
  Optimizers optimizers(model, {.matrix = 0.02, .embedding = 0.1, .unembedding = 0.1});
  at::manual_seed(4);
  std::vector<double> losses;
  for (int step = 0; step < 4; ++step) {
    const at::Tensor tokens = at::randint(50, {2, 8}, at::kLong);
    const Gpt anew(tiny, 2, at::kCPU, at::kBFloat16);
    {
      const at::NoGradGuard no_grad;
      for (size_t i = 0; i < model.parameters().size(); ++i) {
        at::Tensor(anew.parameters()[i].value).copy_(model.parameters()[i].value);
      }
    }
    const at::Tensor loss = differentiated_loss(model, tokens);
    EXPECT_TRUE(at::equal(loss, differentiated_loss(anew, tokens)));
    for (size_t i = 0; i < model.parameters().size(); ++i) {
      const Parameter &a = model.parameters()[i], &b = anew.parameters()[i];
      EXPECT_TRUE(at::equal(a.value.grad().to_dense(), b.value.grad().to_dense())) << a.name;
    }
    losses.push_back(loss.item<double>());
    optimizers.step(1);
    for (const Parameter& p : model.parameters()) {
      if (p.role == Role::kEmbedding) continue;
      EXPECT_TRUE(at::equal(p.weight.bfloat16_copy(), p.value.to(at::kBFloat16))) << p.name;
    }
  }
  EXPECT_NE(losses[0], losses[3]);
}

// A token's gradient counts once, whatever the number of micro-batches and of its occurrences.
TEST(Optimizers, ASparseGradientIsClippedAndTakenAsItsSum) {
  const GptOptions tiny{
      .n_layer = 1, .n_head = 1, .n_kv_head = 1, .n_embd = 8, .sequence_len = 4, .vocab_size = 16};
  const Gpt one(tiny, 1, at::kCPU, at::kFloat), other(tiny, 1, at::kCPU, at::kFloat);
  Optimizers sparse(one, {}), dense(other, {});
  const at::Tensor rows = at::tensor({int64_t{9}, int64_t{2}, int64_t{9}});
  const at::Tensor values = at::arange(24, at::kFloat).view({3, 8});
  for (const Gpt* model : {&one, &other}) {
    for (const Parameter& p : model->parameters()) {
      at::Tensor(p.value).mutable_grad() = at::full_like(p.value, 0.5);
    }
  }
  const at::Tensor both = at::sparse_coo_tensor(rows.unsqueeze(0), values, {16, 8});
  at::Tensor(one.parameters()[0].value).mutable_grad() = both;
  at::Tensor(other.parameters()[0].value).mutable_grad() = both.to_dense();
  const double norm = dense.clip_gradients(1).item<double>();
  EXPECT_NEAR(sparse.clip_gradients(1).item<double>(), norm, 1e-5 * norm);
  sparse.step(1);
  dense.step(1);
  for (size_t i = 0; i < one.parameters().size(); ++i) {
    const at::Tensor& a = one.parameters()[i].value;
    const at::Tensor& b = other.parameters()[i].value;
    EXPECT_TRUE(at::allclose(a, b, 1e-5, 1e-7)) << one.parameters()[i].name;
  }
}

TEST(Budget, TheBaselineIsTheBaseline) {
  const Gpt model({}, 1, at::kCPU, at::kFloat);
  const Budget budget = make_budget(model, Config{});
  EXPECT_EQ(budget.flops_per_token, 44'924'928);
  EXPECT_EQ(budget.tokens_per_step, 2048);
  EXPECT_EQ(budget.flops_per_step, 92'006'252'544);
  EXPECT_EQ(budget.steps, 22);
}

TEST(Budget, TheSmallerOfStepsAndFlopsEndsTheRunAndLessThanAStepIsRefused) {
  const Gpt model({}, 1, at::kCPU, at::kFloat);
  Config config;
  config.max_steps = 3;
  EXPECT_EQ(make_budget(model, config).steps, 3);
  config.max_steps = 1000;
  EXPECT_EQ(make_budget(model, config).steps, 22);
  config.target_flops = 9e10;
  try {
    make_budget(model, config);
    FAIL() << "a budget below one step was accepted";
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find("one step of 92006252544 FLOPs, is 90000000000"),
              std::string::npos)
        << error.what();
  }
}

TEST(Schedule, RisesAndFallsInStraightLines) {
  Config config;
  config.lr_warmup_steps = 4;
  config.lr_warmdown_steps = 5;
  std::vector<double> rates;
  for (int64_t step = 1; step <= 12; ++step) {
    rates.push_back(learning_rate_multiplier(config, step, 12));
  }
  const std::vector<double> expected = {0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2};
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(rates[i], expected[i], 1e-12) << i;
  EXPECT_EQ(learning_rate_multiplier(Config{}, 1, 12), 1);
}

}  // namespace
}  // namespace nanoflex
