// What optimizers do to each element, in every instruction set, against fp64.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_fused_adamw.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/cpu/dispatch.h"
#include "trainer/updates_cpu.h"

namespace nanoflex {
namespace {

constexpr double kRate = 0.01, kMeanDecay = 0.8, kSquareDecay = 0.95, kEpsilon = 1e-10;
constexpr int64_t kStep = 3;

cpu::AdamWFactors factors() {
  return {.mean_weight = 1 - kMeanDecay,
          .square_decay = kSquareDecay,
          .square_weight = 1 - kSquareDecay,
          .rate = static_cast<float>(kRate / (1 - std::pow(kMeanDecay, kStep))),
          .root_scale = static_cast<float>(1 / std::sqrt(1 - std::pow(kSquareDecay, kStep))),
          .epsilon = kEpsilon};
}

struct State {
  at::Tensor value, mean, square, gradient;

  State to(at::ScalarType type) const {  // a copy
    const auto copy = [&](const at::Tensor& x) { return x.to(type, false, /*copy=*/true); };
    return {copy(value), copy(mean), copy(square), copy(gradient)};
  }
};

State random_state(at::IntArrayRef sizes) {
  return {at::randn(sizes), at::randn(sizes) * 0.01, at::rand(sizes) * 1e-3, at::randn(sizes) * .1};
}

State updated_by_definition(State s) {
  s.mean = kMeanDecay * s.mean + (1 - kMeanDecay) * s.gradient;
  s.square = kSquareDecay * s.square + (1 - kSquareDecay) * s.gradient.square();
  const at::Tensor mean = s.mean / (1 - std::pow(kMeanDecay, kStep));
  const at::Tensor square = s.square / (1 - std::pow(kSquareDecay, kStep));
  s.value = s.value - kRate * mean / (square.sqrt() + kEpsilon);
  return s;
}

State updated_by_libtorch(const State& before) {
  const State s = before.to(at::kFloat);
  at::_fused_adamw_({s.value}, {s.gradient}, {s.mean}, {s.square}, {}, {at::scalar_tensor(kStep)},
                    kRate, kMeanDecay, kSquareDecay, 0, kEpsilon, false, false);
  return s;
}

AdamWTensor task(const State& s, const at::Tensor& copy = {}) {
  return {.value = s.value,
          .mean = s.mean,
          .square = s.square,
          .gradient = s.gradient,
          .copy = copy,
          .factors = factors()};
}

double error(const at::Tensor& x, const at::Tensor& truth) {
  return (x.to(at::kDouble) - truth).abs().max().item<double>();
}

void expect_as_exact(const State& found, const State& plain, const State& truth) {
  for (at::Tensor State::*part : {&State::value, &State::mean, &State::square}) {
    const double unit = 0x1p-23 * (truth.*part).abs().max().item<double>();
    const double bound = 2 * error(plain.*part, truth.*part) + unit;
    EXPECT_TRUE(error(found.*part, truth.*part) <= bound) << error(found.*part, truth.*part);
  }
}

void expect_same_bits(const State& a, const State& b) {
  EXPECT_TRUE(at::equal(a.value, b.value));
  EXPECT_TRUE(at::equal(a.mean, b.mean));
  EXPECT_TRUE(at::equal(a.square, b.square));
}

// Tensors of less than a vector, of odd sizes, and of several pieces, all in one call.
TEST(Updates, AdamWIsItsDefinitionInEveryInstructionSet) {
  at::manual_seed(1);
  const std::vector<State> before = {random_state({3}), random_state({7, 11}),
                                     random_state({301, 129})};
  for (const cpu::ModelKernelSet& kernels : cpu::all_model_kernels()) {
    SCOPED_TRACE(kernels.name);
    std::vector<State> found;
    std::vector<AdamWTensor> tasks;
    for (const State& s : before) {
      found.push_back(s.to(at::kFloat));
      tasks.push_back(task(found.back(), at::empty_like(s.value, at::kBFloat16)));
    }
    adamw_cpu(tasks, kernels);
    for (size_t i = 0; i < before.size(); ++i) {
      expect_as_exact(found[i], updated_by_libtorch(before[i]),
                      updated_by_definition(before[i].to(at::kDouble)));
      EXPECT_TRUE(at::equal(tasks[i].copy, found[i].value.to(at::kBFloat16)));
    }
  }
}

// Rows of zero gradient move by the means that they have, or stand still for want of any.
TEST(Updates, ASparseGradientGivesTheBitsOfItsZeros) {
  at::manual_seed(2);
  const int64_t V = 700, C = 37;
  State before = random_state({V, C});
  before.mean.narrow(0, 100, 400).zero_();
  before.square.narrow(0, 100, 400).zero_();
  before.square[250].fill_(0.5);
  before.mean[300].fill_(1e-30);
  for (const at::Tensor& rows :
       {at::tensor({int64_t{0}, int64_t{1}, int64_t{5}, int64_t{V - 1}}), at::arange(120, 600, 3),
        at::arange(440, 450), at::empty({0}, at::kLong)}) {
    before.gradient = at::zeros({V, C}).index_copy(0, rows, at::randn({rows.numel(), C}));
    const at::Tensor sparse =
        at::sparse_coo_tensor(rows.unsqueeze(0), before.gradient.index_select(0, rows), {V, C})
            .coalesce();
    for (const cpu::ModelKernelSet& kernels : cpu::all_model_kernels()) {
      SCOPED_TRACE(kernels.name);
      const State dense = before.to(at::kFloat);
      State found = before.to(at::kFloat), with_copy = before.to(at::kFloat);
      found.gradient = with_copy.gradient = sparse;
      const at::Tensor copy = at::empty({V, C}, at::kBFloat16);
      adamw_cpu({task(dense)}, kernels);
      adamw_cpu({task(found), task(with_copy, copy)}, kernels);
      expect_same_bits(found, dense);
      expect_same_bits(with_copy, dense);
      EXPECT_TRUE(at::equal(copy, dense.value.to(at::kBFloat16)));
    }
  }
}

// Arithmetic on numbers below fp32's normal ones takes many times as long.
TEST(Updates, FadingMomentsEndAtZero) {
  const State s = {at::ones({40}), at::full({40}, -1.3e-38), at::full({40}, 1.2e-38),
                   at::zeros({40})};
  for (const cpu::ModelKernelSet& kernels : cpu::all_model_kernels()) {
    const State found = s.to(at::kFloat);
    adamw_cpu({task(found)}, kernels);
    EXPECT_EQ(found.mean.abs().max().item<float>(), 0) << kernels.name;
    EXPECT_EQ(found.square.abs().max().item<float>(), 0) << kernels.name;
    EXPECT_TRUE(at::equal(found.value, s.value)) << kernels.name;
  }
}

TEST(Updates, AnyNumberOfThreadsGivesTheSameBits) {
  at::manual_seed(3);
  const State before = random_state({411, 129});
  const auto run = [&](int threads) {
    at::set_num_threads(threads);
    const State found = before.to(at::kFloat);
    adamw_cpu({task(found)}, cpu::chosen_model_kernels());
    return found;
  };
  const int threads = at::get_num_threads();
  const State one = run(1), three = run(3);
  at::set_num_threads(threads);
  expect_same_bits(one, three);
}

TEST(Updates, MuonsAreTheirDefinitionsInEveryInstructionSet) {
  at::manual_seed(4);
  const at::Tensor momentum = at::randn({2, 131, 131}), gradient = at::randn({2, 131, 131});
  const at::Tensor truth = momentum.to(at::kDouble).lerp(gradient.to(at::kDouble), 0.05);
  const at::Tensor direction = gradient.to(at::kDouble).lerp(truth, 0.95);
  for (const cpu::ModelKernelSet& kernels : cpu::all_model_kernels()) {
    SCOPED_TRACE(kernels.name);
    const at::Tensor taken = momentum.clone();
    const at::Tensor found = take_momentum_cpu(taken, {gradient[0], gradient[1]}, 0.05, kernels);
    EXPECT_TRUE(error(taken, truth) < 1e-6);
    EXPECT_TRUE(error(found, direction) <= 0x1p-8 * direction.abs().max().item<double>());

    const CastWeight first(at::randn({131, 131})), second(at::randn({131, 131}));
    const at::Tensor copy = first.copy_in(at::kBFloat16);
    const at::Tensor moved = second.value().to(at::kDouble) - 0.1 * found[1].to(at::kDouble);
    move_cpu({first, second}, found, 0.1, kernels);
    EXPECT_TRUE(error(second.value(), moved) < 1e-6);
    EXPECT_TRUE(at::equal(copy, first.value().to(at::kBFloat16)));
    EXPECT_EQ(first.copy_in(at::kBFloat16).const_data_ptr(), copy.const_data_ptr());
  }
}

}  // namespace
}  // namespace nanoflex
