// The fused CPU kernels of every instruction set, on any machine: what it lacks is emulated.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <random>

#include "attention/cpu/dispatch.h"
#include "attention/cpu/fused_cpu.h"
#include "attention/flex/band.h"
#include "tests/attention/accuracy.h"
#include "tests/attention/reference.h"
#include "tests/threads.h"

namespace nanoflex {
namespace {

// A band of keys as a Case: q - kv <= left, kv - q <= right.
Case band_case(std::vector<int64_t> sizes, int64_t left, int64_t right) {
  const flex::Expression mask = flex::trace_mask(
      [&](auto, auto, auto q, auto kv) { return (q - kv <= left) & (kv - q <= right); });
  const Rule rule = [=](int64_t, int64_t, int64_t q, int64_t kv) {
    return q - kv <= left && kv - q <= right;
  };
  return {"band", sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], mask, rule};
}

constexpr int64_t kFar = 1 << 20;

// B, H, H_kv, T, S, D.
std::vector<Case> awkward_cases() {
  return {
      band_case({1, 1, 1, 1, 1, 8}, kFar, 0),       band_case({2, 2, 1, 17, 17, 40}, kFar, 0),
      band_case({1, 1, 1, 131, 131, 64}, kFar, 0),  band_case({1, 2, 2, 100, 100, 80}, kFar, 0),
      band_case({1, 2, 1, 65, 65, 96}, kFar, kFar), band_case({1, 1, 1, 50, 70, 192}, kFar, 0),
      band_case({1, 1, 1, 40, 50, 256}, 7, 3),      band_case({2, 4, 2, 1, 201, 40}, kFar, 0),
      band_case({1, 8, 1, 3, 1100, 16}, kFar, 0),   band_case({1, 2, 1, 64, 9, 33}, kFar, 0),
      band_case({1, 1, 1, 129, 129, 1}, 20, 0),     band_case({1, 2, 2, 70, 70, 24}, -2, 5),
      band_case({1, 2, 2, 70, 40, 31}, 5, -2),      band_case({1, 1, 1, 20, 20, 16}, -1, 0),
      band_case({1, 3, 1, 200, 300, 48}, 31, 17),   band_case({3, 1, 1, 5, 97, 7}, kFar, kFar),
  };
}

FusedOptions options_of(const Case& problem) {
  const flex::Band band = *flex::band_of(problem.mask);
  return {.left = band.left.value_or(FusedOptions::kUnbounded),
          .right = band.right.value_or(FusedOptions::kUnbounded),
          .scale = 1 / std::sqrt(static_cast<double>(problem.D))};
}

Tensors by_kernels(const cpu::KernelSet& kernels, const Case& problem, const Tensors& inputs,
                   at::ScalarType dtype, const Dropout& dropout = {}, bool need_logsumexp = false) {
  FusedOptions options = options_of(problem);
  options.dropout = dropout;
  options.need_logsumexp = need_logsumexp;
  const at::Tensor q = inputs.q.to(dtype), k = inputs.k.to(dtype), v = inputs.v.to(dtype);
  const FusedResult result = cpu::forward(q, k, v, options, kernels);
  const FusedGradients gradients =
      cpu::backward(q, k, v, result, inputs.d_output.to(dtype), inputs.d_logsumexp.to(at::kFloat),
                    options, kernels);
  Tensors all = inputs;
  all.output = result.output;
  all.logsumexp = need_logsumexp ? result.logsumexp : at::Tensor();
  all.dq = gradients.dq, all.dk = gradients.dk, all.dv = gradients.dv;
  return all;
}

double farthest(const at::Tensor& found, const at::Tensor& truth) {
  return (found.to(at::kDouble) - truth).abs().max().item<double>();
}

class FusedCpu : public testing::TestWithParam<at::ScalarType> {};

TEST_P(FusedCpu, EveryInstructionSetIsAsExactAsThePlainFormula) {
  for (const Case& problem : awkward_cases()) {
    Tensors inputs = random_inputs(problem, GetParam());
    inputs.d_logsumexp = inputs.d_output.select(-1, 0).contiguous();
    const Tensors truth = by_definition(problem, inputs);
    const Tensors plain = by_plain_formula(problem, inputs, GetParam());
    for (const cpu::KernelSet& kernels : cpu::all_kernels()) {
      SCOPED_TRACE(std::string(kernels.name) + ", q " + c10::str(inputs.q.sizes()) + ", k " +
                   c10::str(inputs.k.sizes()) + ", mask " + flex::to_text(problem.mask));
      for (const bool need_logsumexp : {false, true}) {
        expect_all_close(by_kernels(kernels, problem, inputs, GetParam(), {}, need_logsumexp),
                         plain, truth);
      }
    }
  }
}

TEST_P(FusedCpu, ALongRowIsAsExactAsThePlainFormula) {
  const Case problem = band_case({1, 1, 1, 1023, 1023, 32}, kFar, 0);
  const Tensors inputs = random_inputs(problem, GetParam());
  const Tensors plain = by_plain_formula(problem, inputs, GetParam()),
                truth = by_definition(problem, inputs);
  for (const cpu::KernelSet& kernels : cpu::all_kernels()) {
    for (const bool need_logsumexp : {false, true}) {
      SCOPED_TRACE(kernels.name);
      expect_all_close(by_kernels(kernels, problem, inputs, GetParam(), {}, need_logsumexp), plain,
                       truth);
    }
  }
}

// Where weights are rounded to bf16, a block may find that scores are far from those before it.
TEST_P(FusedCpu, ScoresMayRiseAndFallAlongTheKeys) {
  const Case problem = band_case({1, 1, 1, 40, 1200, 16}, kFar, kFar);
  for (const double slope : {-0.5, -0.1, 0.1, 0.5}) {
    Tensors inputs = random_inputs(problem, GetParam());
    inputs.q.select(-1, 0).fill_(4);
    inputs.k.select(-1, 0).copy_(slope * at::arange(1200) - 100);
    for (at::Tensor* x : {&inputs.q, &inputs.k}) *x = x->to(GetParam()).to(at::kDouble);
    const Tensors plain = by_plain_formula(problem, inputs, GetParam()),
                  truth = by_definition(problem, inputs);
    for (const cpu::KernelSet& kernels : cpu::all_kernels()) {
      for (const bool need_logsumexp : {false, true}) {
        SCOPED_TRACE(c10::str(kernels.name, ", ", slope));
        expect_all_close(by_kernels(kernels, problem, inputs, GetParam(), {}, need_logsumexp),
                         plain, truth);
        EXPECT_TRUE(
            farthest(by_kernels(kernels, problem, inputs, GetParam()).output, truth.output) < 0.1);
      }
    }
  }
}

// A view into a larger tensor whose dimensions lie in some order, in front of some padding.
at::Tensor strided_copy(const at::Tensor& x, std::mt19937_64& random) {
  std::vector<int64_t> order = {0, 1, 2, 3};
  std::shuffle(order.begin(), random() % 4 == 0 ? order.end() : order.end() - 1, random);
  std::vector<int64_t> sizes, back(4);
  for (int64_t i = 0; i < 4; ++i) {
    sizes.push_back(x.size(order[i]) + static_cast<int64_t>(random() % 3));
    back[order[i]] = i;
  }
  at::Tensor view = at::full(sizes, std::nan(""), x.options()).permute(back);
  for (int64_t i = 0; i < 4; ++i) view = view.narrow(i, 0, x.size(i));
  return view.copy_(x);
}

TEST_P(FusedCpu, AThousandRandomShapesAndStrides) {
  const uint64_t seed = 20260131;
  std::mt19937_64 random(seed);
  const auto kernel_sets = cpu::all_kernels();
  const auto between = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
  };
  for (int i = 0; i < 500; ++i) {  // for each of two types
    const int64_t H_kv = between(1, 2), S = between(1, 40);
    const Case problem = band_case({between(1, 2), H_kv * between(1, 3), H_kv, between(1, 40), S,
                                    between(1, i % 10 == 0 ? 256 : 40)},
                                   between(-1, 2) * between(0, S), between(-1, 2) * between(0, S));
    const Tensors inputs = random_inputs(problem, GetParam(), random());
    const Tensors truth = by_definition(problem, inputs);
    const Tensors plain = by_plain_formula(problem, inputs, GetParam());
    Tensors strided = inputs;
    for (at::Tensor* x : {&strided.q, &strided.k, &strided.v, &strided.d_output}) {
      *x = strided_copy(*x, random);
    }
    const cpu::KernelSet& kernels = kernel_sets[random() % kernel_sets.size()];
    SCOPED_TRACE(c10::str("seed ", seed, ", number ", i, ", ", kernels.name, ", q ",
                          inputs.q.sizes(), ", k ", inputs.k.sizes(), ", mask ",
                          flex::to_text(problem.mask)));
    expect_all_close(by_kernels(kernels, problem, strided, GetParam(), {}, i % 2 == 0), plain,
                     truth);
    if (testing::Test::HasFailure()) break;
  }
}

TEST_P(FusedCpu, ScoresOfTenThousandDoNotOverflow) {
  const Case problem = band_case({1, 2, 1, 50, 50, 16}, kFar, 0);
  Tensors inputs = random_inputs(problem, GetParam());
  inputs.q = (inputs.q * 100).to(GetParam()).to(at::kDouble);
  inputs.k = (inputs.k * 100).to(GetParam()).to(at::kDouble);
  const Tensors truth = by_definition(problem, inputs);
  const Tensors plain = by_plain_formula(problem, inputs, GetParam());
  for (const cpu::KernelSet& kernels : cpu::all_kernels()) {
    SCOPED_TRACE(kernels.name);
    expect_all_close(by_kernels(kernels, problem, inputs, GetParam()), plain, truth);
  }
}

// Equal weights, and a channel of v for each 64 keys: outputs count the keys that each row sees,
// which bounds far tighter than those of random numbers in bf16.
TEST_P(FusedCpu, EqualWeightsCountKeys) {
  const Case problem = band_case({1, 1, 1, 1023, 1023, 16}, kFar, 0);
  Tensors inputs = random_inputs(problem, GetParam());
  inputs.q.zero_();
  const at::Tensor group = at::arange(1023).div(64, "floor").unsqueeze(1);
  inputs.v.copy_((group == at::arange(16)).to(at::kDouble));
  const at::Tensor truth = inputs.v[0][0].cumsum(0) / at::arange(1, 1024).unsqueeze(1);
  for (const cpu::KernelSet& kernels : cpu::all_kernels()) {
    const at::Tensor found = by_kernels(kernels, problem, inputs, GetParam()).output[0][0];
    EXPECT_TRUE(farthest(found, truth) < 0.01) << kernels.name << ": " << farthest(found, truth);
  }
}

// Decoding: threads take parts of the keys, whose results are joined.
TEST_P(FusedCpu, FewQueriesOfManyKeysAreCutAndJoined) {
  const Threads threads(4);
  const Case problem = band_case({1, 2, 1, 2, 2100, 40}, kFar, 0);
  Tensors inputs = random_inputs(problem, GetParam());
  inputs.d_logsumexp = inputs.d_output.select(-1, 0).contiguous();
  const Tensors truth = by_definition(problem, inputs),
                plain = by_plain_formula(problem, inputs, GetParam());
  for (const cpu::KernelSet& kernels : cpu::all_kernels()) {
    SCOPED_TRACE(kernels.name);
    for (const bool need_logsumexp : {false, true}) {
      expect_all_close(by_kernels(kernels, problem, inputs, GetParam(), {}, need_logsumexp), plain,
                       truth);
    }
  }
}

TEST_P(FusedCpu, BitsDoNotDependOnWhichThreadIsFirst) {
  for (const Case& problem :
       {band_case({1, 2, 1, 400, 400, 16}, kFar, 0), band_case({1, 1, 1, 400, 400, 32}, 50, 9)}) {
    const Tensors inputs = random_inputs(problem, GetParam());
    const Threads single(1);
    const Tensors one = by_kernels(cpu::chosen_kernels(), problem, inputs, GetParam());
    const Tensors again = by_kernels(cpu::chosen_kernels(), problem, inputs, GetParam());
    EXPECT_TRUE(one.output.equal(again.output) && one.dq.equal(again.dq));
    const Threads several(4);
    const Tensors four = by_kernels(cpu::chosen_kernels(), problem, inputs, GetParam());
    const Tensors repeat = by_kernels(cpu::chosen_kernels(), problem, inputs, GetParam());
    EXPECT_TRUE(four.output.equal(repeat.output));
    EXPECT_TRUE(four.dq.equal(repeat.dq));
    EXPECT_TRUE(four.dk.equal(repeat.dk));
    EXPECT_TRUE(four.dv.equal(repeat.dv));
    expect_all_close(four, by_plain_formula(problem, inputs, GetParam()),
                     by_definition(problem, inputs));
  }
}

// vanilla draws the same bits as a tensor.
TEST_P(FusedCpu, DropsTheSameWeightsAsThePlainFormula) {
  const Case problem = band_case({2, 4, 2, 37, 45, 24}, kFar, 0);
  const Tensors inputs = random_inputs(problem, GetParam());
  const Dropout dropout = {.probability = 0.3, .seed = 0x123456789abcdef};
  const auto leaf = [&](const at::Tensor& x, at::ScalarType dtype) {
    return x.to(dtype).detach().requires_grad_();
  };
  const auto by_vanilla = [&](at::ScalarType dtype) {
    const at::Tensor q = leaf(inputs.q, dtype), k = leaf(inputs.k, dtype),
                     v = leaf(inputs.v, dtype);
    const Attention result = attend(
        q, k, v, {.mask = problem.mask, .dropout = dropout, .need_logsumexp = true}, "vanilla");
    const auto gradients =
        torch::autograd::grad({result.output}, {q, k, v}, {inputs.d_output.to(dtype)});
    Tensors all = inputs;
    all.output = result.output.detach(), all.logsumexp = result.logsumexp.detach();
    all.dq = gradients[0], all.dk = gradients[1], all.dv = gradients[2];
    return all;
  };
  const Tensors truth = by_vanilla(at::kDouble), plain = by_vanilla(GetParam());
  for (const cpu::KernelSet& kernels : cpu::all_kernels()) {
    SCOPED_TRACE(kernels.name);
    expect_all_close(by_kernels(kernels, problem, inputs, GetParam(), dropout), plain, truth);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, FusedCpu, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

TEST(Dropout, KeepsTheShareThatWasAsked) {
  const at::Tensor factors =
      dropout_factors({.probability = 0.25, .seed = 7}, 2, 3, {0, 50}, 60, at::kCPU);
  EXPECT_NEAR((factors == 0).to(at::kDouble).mean().item<double>(), 0.25, 0.01);
  EXPECT_NEAR(factors.mean().item<double>(), 1, 0.02);
  const at::Tensor other =
      dropout_factors({.probability = 0.25, .seed = 8}, 2, 3, {0, 50}, 60, at::kCPU);
  EXPECT_FALSE(factors.equal(other));
  EXPECT_FALSE(factors[0].equal(factors[1]));
}

TEST(Dropout, OfSomeRowsIsThatOfAll) {
  const Dropout dropout = {.probability = 0.25, .seed = 7};
  const at::Tensor all = dropout_factors(dropout, 2, 3, {0, 50}, 60, at::kCPU);
  const at::Tensor some = dropout_factors(dropout, 2, 3, {17, 30}, 60, at::kCPU);
  EXPECT_TRUE(some.equal(all.slice(2, 17, 30)));
}

TEST(Kernels, AreNamedAndRefusedByName) {
  EXPECT_STREQ(cpu::kernels_named("portable").name, "portable");
  EXPECT_EQ(
      refusal([] { cpu::kernels_named("sse"); }).find("[attention] NANOFLEX_CPU must be one of "),
      0U);
}

TEST(Band, IsFoundInEveryWayOfWritingIt) {
  using flex::band_of, flex::causal, flex::full, flex::trace_mask, flex::window;
  const auto expect = [](const flex::Expression& mask, std::optional<int64_t> left,
                         std::optional<int64_t> right) {
    const auto band = band_of(mask);
    ASSERT_TRUE(band.has_value()) << flex::to_text(mask);
    EXPECT_EQ(band->left, left) << flex::to_text(mask);
    EXPECT_EQ(band->right, right) << flex::to_text(mask);
  };
  expect(full(), {}, {});
  expect(causal(), {}, 0);
  expect(window(7), 7, {});
  expect(causal() & window(7) & window(3), 3, 0);
  expect(trace_mask([](auto, auto, auto q, auto kv) { return kv < q; }), {}, -1);
  expect(trace_mask([](auto, auto, auto q, auto kv) { return kv - q <= 5; }), {}, 5);
  expect(trace_mask([](auto, auto, auto q, auto kv) { return q + 2 > kv - 1; }), {}, 2);
  expect(trace_mask([](auto, auto, auto q, auto kv) { return -kv + q == 4; }), 4, -4);
  const auto none = [](const flex::Expression& mask) { return !band_of(mask).has_value(); };
  EXPECT_TRUE(none(causal() | window(3)));
  EXPECT_TRUE(none(!causal()));
  EXPECT_TRUE(none(trace_mask([](auto, auto h, auto q, auto kv) { return q - kv <= h; })));
  EXPECT_TRUE(none(trace_mask([](auto, auto, auto q, auto kv) { return q + kv <= 4; })));
  EXPECT_TRUE(none(trace_mask([](auto, auto, auto q, auto) { return q <= 4; })));
}

}  // namespace
}  // namespace nanoflex
