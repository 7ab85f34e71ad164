// Masks and scores inside the fused CPU kernels of every instruction set, against the same
// expressions on whole tensors in fp64.
#include <gtest/gtest.h>
#include <torch/autograd.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "attention/cpu/dispatch.h"
#include "attention/cpu/fused_cpu.h"
#include "attention/flex/derivative.h"
#include "attention/flex/evaluate.h"
#include "attention/flex/tile_code.h"
#include "attention/fused.h"
#include "attention/registry.h"
#include "tests/attention/accuracy.h"
#include "tests/attention/random_expression.h"
#include "tests/attention/reference.h"

namespace nanoflex {
namespace {

using flex::Captured;
using flex::Expression;
using flex::trace_mask;
using flex::trace_score;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Sizes {
  int64_t B, H, H_kv, T, S, D;
};

// Ragged lengths, grouped heads, decoding, more queries than keys, blocks of 128 cut and whole.
const std::vector<Sizes>& all_sizes() {
  static const std::vector<Sizes> sizes = {{2, 2, 2, 37, 37, 16},  {1, 4, 2, 300, 300, 8},
                                           {2, 2, 1, 1, 200, 24},  {1, 3, 1, 9, 150, 40},
                                           {1, 2, 2, 150, 70, 16}, {1, 1, 1, 257, 257, 33}};
  return sizes;
}

/// Expressions over tensors of these sizes; `tensors` are those to which gradients flow.
struct Flex {
  Expression mask = flex::full(), score = {};
  std::vector<at::Tensor> tensors = {};
};

struct Named {
  std::string name;
  std::function<Flex(const Sizes&)> make;
};

at::Tensor random(at::IntArrayRef sizes) {
  return at::randn(sizes, at::kFloat).requires_grad_();  // fp32 tensors hold fp64's truth exactly
}

at::Tensor documents(const Sizes& sizes) {
  return at::randint(0, 9, {sizes.B, sizes.S}, at::kLong).eq(0).cumsum(1);
}

std::vector<Named> all_expressions() {
  return {
      {"documents",
       [](const Sizes& sizes) {
         const Captured document("document", documents(sizes));
         return Flex{.mask = flex::causal() & trace_mask([&](auto b, auto, auto q, auto kv) {
                               return document[b][max(q, 0)] == document[b][kv];
                             })};
       }},
      {"prefix or every third",
       [](const Sizes&) {
         return Flex{.mask = trace_mask([](auto, auto h, auto q, auto kv) {
                       return ((q >= kv) & ((q - kv) % (h + 2) == 0)) | (kv < 5);
                     })};
       }},
      {"some heads see nothing",
       [](const Sizes&) {
         return Flex{.mask = trace_mask([](auto b, auto h, auto q, auto kv) {
                       return ((b + h) % 2 == 0) & (q % 5 != 3) & (kv / 16 != 1);
                     })};
       }},
      {"softcap",
       [](const Sizes&) {
         return Flex{.mask = flex::causal(),
                     .score = trace_score(
                         [](auto s, auto, auto, auto, auto) { return 2.0 * tanh(s / 2.0); })};
       }},
      {"learned slopes",
       [](const Sizes& sizes) {
         const at::Tensor slope = random({sizes.H});
         const Captured slopes("slopes", slope);
         return Flex{.mask = flex::causal(),
                     .score = trace_score([&](auto s, auto, auto h, auto q, auto kv) {
                       return s + slopes[h] * 0.05 * (kv - q);
                     }),
                     .tensors = {slope}};
       }},
      {"relative bias, indexed twice, and one a key",
       [](const Sizes& sizes) {
         const at::Tensor bias = random({sizes.H, 2 * sizes.S + 2 * sizes.T});
         const at::Tensor weight = random({sizes.B, sizes.S});
         const Captured biases("bias", bias), weights("weight", weight);
         const int64_t shift = sizes.S + sizes.T;
         return Flex{.score = trace_score([&](auto s, auto b, auto h, auto q, auto kv) {
                       return s * biases[h][q - kv + shift] + biases[0][kv] * weights[b][kv];
                     }),
                     .tensors = {bias, weight}};
       }},
      {"one a query, everything else",
       [](const Sizes& sizes) {
         const at::Tensor gate = random({sizes.H, sizes.T}), one = random({});
         const Captured gates("gate", gate), ones("one", one);
         const int64_t shift = sizes.T - sizes.S;
         return Flex{.mask = trace_mask(
                         [](auto, auto, auto q, auto kv) { return (q >= kv) | (kv % 7 == 1); }),
                     .score = trace_score([&](auto s, auto, auto h, auto q, auto kv) {
                       const Expression x = s * sigmoid(gates[h][q + shift]) + ones;
                       return select(kv % 2 == 0, max(x, -1.0) + exp(-abs(x)),
                                     min(log(x * x + 1.0), sqrt(abs(x) + 0.5)) - floor(x) % 3);
                     }),
                     .tensors = {gate, one}};
       }},
      {"only the keys' places",
       [](const Sizes&) {
         return Flex{.score =
                         trace_score([](auto, auto, auto h, auto, auto kv) { return kv % 5 - h; })};
       }},
  };
}

struct Result {
  Tensors tensors;
  std::vector<at::Tensor> captured;
};

Tensors inputs_of(const Sizes& sizes, at::ScalarType dtype) {
  const Case problem = {"", sizes.B, sizes.H, sizes.H_kv, sizes.T, sizes.S, sizes.D, {}, {}};
  Tensors inputs = random_inputs(problem, dtype);
  inputs.d_logsumexp = inputs.d_output.select(-1, 0).contiguous();
  return inputs;
}

Result by_vanilla(const Tensors& inputs, const Flex& flex, at::ScalarType dtype) {
  const auto leaf = [&](const at::Tensor& x) { return x.to(dtype).detach().requires_grad_(); };
  const at::Tensor q = leaf(inputs.q), k = leaf(inputs.k), v = leaf(inputs.v);
  const Attention attention =
      attend(q, k, v, {.mask = flex.mask, .score = flex.score, .need_logsumexp = true}, "vanilla");
  std::vector<at::Tensor> wanted = {q, k, v};
  wanted.insert(wanted.end(), flex.tensors.begin(), flex.tensors.end());
  // Rows that see nothing have a logsumexp of -inf, which has no gradient.
  const at::Tensor blind = attention.logsumexp.detach() == -kInfinity;
  const at::Tensor d_logsumexp =
      inputs.d_logsumexp.to(attention.logsumexp.scalar_type()).masked_fill(blind, 0);
  std::vector<at::Tensor> results = {attention.output};
  std::vector<at::Tensor> d_results = {inputs.d_output.to(dtype)};
  if (attention.logsumexp.requires_grad()) {  // not where the score is all places
    results.push_back(attention.logsumexp);
    d_results.push_back(d_logsumexp);
  }
  const auto gradients = torch::autograd::grad(results, wanted, d_results, std::nullopt,
                                               /*create_graph=*/false, /*allow_unused=*/true);
  Result result{.tensors = inputs, .captured = {}};
  result.tensors.output = attention.output.detach();
  result.tensors.logsumexp = attention.logsumexp.detach();
  const auto given = [&](size_t i) {
    return gradients[i].defined() ? gradients[i] : at::zeros_like(wanted[i]);
  };
  result.tensors.dq = given(0), result.tensors.dk = given(1), result.tensors.dv = given(2);
  for (size_t i = 3; i < wanted.size(); ++i) result.captured.push_back(given(i));
  return result;
}

Result by_kernels(const cpu::KernelSet& kernels, const Tensors& inputs, const Flex& flex,
                  at::ScalarType dtype) {
  const at::Tensor q = inputs.q.to(dtype), k = inputs.k.to(dtype), v = inputs.v.to(dtype);
  const FusedOptions options = fused_options(q, k, {.mask = flex.mask, .score = flex.score});
  const FusedResult forward = cpu::forward(q, k, v, options, kernels);
  const FusedGradients gradients =
      cpu::backward(q, k, v, forward, inputs.d_output.to(dtype), inputs.d_logsumexp.to(at::kFloat),
                    options, kernels);
  Result result{.tensors = inputs, .captured = gradients.captured};
  result.tensors.output = forward.output, result.tensors.logsumexp = forward.logsumexp;
  result.tensors.dq = gradients.dq, result.tensors.dk = gradients.dk;
  result.tensors.dv = gradients.dv;
  return result;
}

double error(const at::Tensor& x, const at::Tensor& truth) {
  return (x.to(at::kDouble) - truth.to(at::kDouble)).abs().max().item<double>();
}

// Of what a gradient of a captured tensor sums: the derivative by it, over all pairs; at least 1.
double largest_derivative(const Tensors& in, const Flex& flex) {
  double largest = 1;
  if (!flex.score.defined()) return largest;
  const at::Tensor k = in.k.repeat_interleave(in.q.size(1) / in.k.size(1), 1);
  const at::Tensor scores =
      at::matmul(in.q, k.transpose(-2, -1)) / std::sqrt(static_cast<double>(in.q.size(3)));
  for (const flex::CapturedRead& read : flex::captured_reads(flex.score)) {
    const at::Tensor value = flex::evaluate(read.derivative, {.B = scores.size(0),
                                                              .H = scores.size(1),
                                                              .T = scores.size(2),
                                                              .S = scores.size(3),
                                                              .score = scores});
    const double most = value.detach().abs().nan_to_num(0, 0).max().item<double>();
    largest = std::max(largest, most);
  }
  return largest;
}

// As exact as the same expressions on whole tensors of the same type: at most twice their error,
// and a unit of the largest of what is summed.
void expect_as_exact(const Result& result, const Result& plain, const Result& truth,
                     const Flex& flex, at::ScalarType dtype) {
  expect_all_close(result.tensors, plain.tensors, truth.tensors);
  ASSERT_EQ(result.captured.size(), truth.captured.size());
  const double unit = dtype == at::kFloat ? 0x1p-23 : 0x1p-7;
  const Tensors& in = truth.tensors;
  const double term =
      largest_derivative(in, flex) *
      at::matmul(in.d_output.abs().amax({0, 1, 2}), in.v.abs().amax({0, 1, 2})).item<double>();
  for (size_t i = 0; i < truth.captured.size(); ++i) {
    const double largest = std::max(term, truth.captured[i].abs().max().item<double>());
    const double bound = 2 * error(plain.captured[i], truth.captured[i]) + unit * largest;
    const double found = error(result.captured[i], truth.captured[i]);
    EXPECT_TRUE(found <= bound) << "captured tensor " << i << ": error " << found << ", bound "
                                << bound;
  }
}

class FlexCpu : public testing::TestWithParam<at::ScalarType> {};

TEST_P(FlexCpu, EveryInstructionSetIsAsExactAsWholeTensors) {
  at::manual_seed(20261121);
  for (const Named& named : all_expressions()) {
    for (const Sizes& sizes : all_sizes()) {
      const Flex flex = named.make(sizes);
      const Tensors inputs = inputs_of(sizes, GetParam());
      const Result truth = by_vanilla(inputs, flex, at::kDouble);
      const Result plain = by_vanilla(inputs, flex, GetParam());
      for (const cpu::KernelSet& kernels : cpu::all_kernels()) {
        SCOPED_TRACE(c10::str(named.name, ", ", kernels.name, ", q ", inputs.q.sizes(), ", k ",
                              inputs.k.sizes()));
        expect_as_exact(by_kernels(kernels, inputs, flex, GetParam()), plain, truth, flex,
                        GetParam());
        if (testing::Test::HasFailure()) return;
      }
    }
  }
}

// Scores that jump (floor, comparisons) say nothing where rounding decides on which side they are.
bool jumps(const Tensors& inputs, const Flex& flex, const Result& truth) {
  Tensors moved = inputs;
  moved.q = inputs.q * (1 + 3e-6);
  const Result other = by_vanilla(moved, flex, at::kDouble);
  const auto differ = [](const at::Tensor& a, const at::Tensor& b) {
    return !at::allclose(a, b, 1e-2, 1e-3);
  };
  bool found = differ(other.tensors.output, truth.tensors.output) ||
               differ(other.tensors.dq, truth.tensors.dq);
  for (size_t i = 0; i < truth.captured.size(); ++i) {
    found |= differ(other.captured[i], truth.captured[i]);
  }
  return found;
}

TEST(FlexCpuRandom, ExpressionsAreAsExactAsOnWholeTensors) {
  constexpr uint64_t kSeed = 20261121;
  std::mt19937_64 random_bits(kSeed);
  at::manual_seed(kSeed);
  const auto kernel_sets = cpu::all_kernels();
  int compared = 0;
  for (int i = 0; i < 150; ++i) {
    const Sizes sizes = all_sizes()[random_bits() % all_sizes().size()];
    if (sizes.T > sizes.S) continue;  // the generator's queries stand among the keys
    flex::NamedTensors tensors = flex::random_tensors(random_bits, sizes.B, sizes.H, sizes.S);
    for (auto& [name, tensor] : tensors) {
      if (tensor.is_floating_point()) tensor.requires_grad_();
    }
    flex::RandomExpression make = {.random = random_bits,
                                   .B = sizes.B,
                                   .H = sizes.H,
                                   .T = sizes.T,
                                   .S = sizes.S,
                                   .tensors = tensors};
    Flex flex = {.mask = make.mask(3), .score = make.score(3)};
    flex.tensors = flex::differentiable_tensors(flex.score);
    SCOPED_TRACE(c10::str("seed ", kSeed, ", number ", i, ", mask ", flex::to_text(flex.mask),
                          ", score ", flex::to_text(flex.score)));
    const Tensors inputs = inputs_of(sizes, at::kFloat);
    if (!flex::why_no_tile_code({.mask = flex.mask,
                                 .score = flex.score,
                                 .B = sizes.B,
                                 .H = sizes.H,
                                 .T = sizes.T,
                                 .S = sizes.S})
             .empty()) {
      continue;
    }
    const Result truth = by_vanilla(inputs, flex, at::kDouble);
    if (jumps(inputs, flex, truth)) continue;
    const cpu::KernelSet& kernels = kernel_sets[random_bits() % kernel_sets.size()];
    SCOPED_TRACE(kernels.name);
    expect_as_exact(by_kernels(kernels, inputs, flex, at::kFloat),
                    by_vanilla(inputs, flex, at::kFloat), truth, flex, at::kFloat);
    ++compared;
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_TRUE(compared > 50) << compared;
}

// Rows, heads and whole blocks that see nothing, and what a score makes of pairs that are masked.
TEST_P(FlexCpu, WhatIsMaskedNeverLeaks) {
  const Sizes sizes = {1, 2, 2, 200, 200, 16};
  const at::Tensor weight = random({2});
  const Captured weights("weight", weight);
  const Flex flex = {.mask = flex::causal() & trace_mask([](auto, auto, auto q, auto kv) {
                               return (q < 60) | ((kv >= 70) & (kv < 190) & (q != 150));
                             }),
                     .score = trace_score([&](auto s, auto, auto h, auto q, auto kv) {
                       return select(kv % 50 == 49, -kInfinity,
                                     s * weights[h] + log(q - kv + 1) + sqrt(q - kv));
                     }),
                     .tensors = {weight}};
  const Tensors inputs = inputs_of(sizes, GetParam());
  for (const cpu::KernelSet& kernels : cpu::all_kernels()) {
    SCOPED_TRACE(kernels.name);
    const Result result = by_kernels(kernels, inputs, flex, GetParam());
    for (const at::Tensor& x : {result.tensors.output, result.tensors.dq, result.tensors.dk,
                                result.tensors.dv, result.captured.at(0)}) {
      EXPECT_TRUE(x.isfinite().all().item<bool>());
    }
    for (const int64_t blind : {60, 69, 150}) {
      EXPECT_EQ(result.tensors.output.select(2, blind).abs().max().item<double>(), 0);
      EXPECT_EQ(result.tensors.dq.select(2, blind).abs().max().item<double>(), 0);
      EXPECT_EQ(result.tensors.logsumexp.select(2, blind).max().item<double>(), -kInfinity);
    }
    EXPECT_EQ(result.tensors.dk.narrow(2, 60, 10).abs().max().item<double>(), 0);
  }
}

TEST_P(FlexCpu, DropsTheSameWeightsAndGivesTheSameBitsTwice) {
  const Sizes sizes = {2, 4, 2, 90, 140, 24};
  const at::Tensor slope = random({4}), bias = random({4, 300});
  const Captured slopes("slope", slope), biases("bias", bias);
  const Spec spec = {.mask = flex::causal() & trace_mask([](auto, auto, auto q, auto kv) {
                               return (q - kv) % 3 != 1;
                             }),
                     .score = trace_score([&](auto s, auto, auto h, auto q, auto kv) {
                       return tanh(s) * slopes[h] + biases[h][q - kv + 150];
                     }),
                     .dropout = {.probability = 0.3, .seed = 77}};
  const Tensors inputs = inputs_of(sizes, GetParam());
  const auto run = [&](const std::string& backend, at::ScalarType dtype) {
    const auto leaf = [&](const at::Tensor& x) { return x.to(dtype).detach().requires_grad_(); };
    const at::Tensor q = leaf(inputs.q), k = leaf(inputs.k), v = leaf(inputs.v);
    const at::Tensor output = attend(q, k, v, spec, backend).output;
    auto all = torch::autograd::grad({output}, {q, k, v, slope, bias}, {inputs.d_output.to(dtype)});
    all.push_back(output.detach());
    return all;
  };
  const auto truth = run("vanilla", at::kDouble), plain = run("vanilla", GetParam());
  const auto result = run("flex", GetParam()), again = run("flex", GetParam());
  const double unit = GetParam() == at::kFloat ? 0x1p-23 : 0x1p-7;
  for (size_t i = 0; i < truth.size(); ++i) {
    EXPECT_TRUE(result[i].equal(again[i])) << i;
    const double largest = std::max(10.0, truth[i].abs().max().item<double>());
    EXPECT_TRUE(error(result[i], truth[i]) <= 2 * error(plain[i], truth[i]) + 4 * unit * largest)
        << i << ": " << error(result[i], truth[i]) << ", plain " << error(plain[i], truth[i]);
  }
}

TEST(FlexCpuRefusals, SayWhatTheKernelsCannotHold) {
  const at::Tensor q = at::zeros({1, 2, 8, 4});
  const Captured table("table", at::zeros({8}));
  const auto refused = [&](const Spec& spec) {
    return refusal([&] { attend(q, q, q, spec, "flex"); });
  };
  EXPECT_NE(refused({.score = trace_score(
                         [&](auto s, auto, auto, auto q, auto kv) { return s + table[q - kv]; })})
                .find("index 'q - kv' (-7 to 7) may lie outside of 'table', which has 8 elements "
                      "there; hold it with min and max; use vanilla"),
            std::string::npos);
  EXPECT_NE(refused({.mask = trace_mask(
                         [](auto, auto, auto q, auto kv) { return q * 1'000'000'000 > kv; })})
                .find("integer 'q * 1000000000' may leave 32 bits"),
            std::string::npos);
  EXPECT_EQ(refused({.block_size = 24}),
            "[attention] block_size must be a positive multiple of 16, is 24");
}

TEST(FlexCpuBlocks, ChangeNothingWhateverTheirSize) {
  const Tensors inputs = inputs_of({1, 2, 1, 150, 170, 16}, at::kFloat);
  const at::Tensor q = inputs.q.to(at::kFloat), k = inputs.k.to(at::kFloat),
                   v = inputs.v.to(at::kFloat);
  const Expression mask = flex::causal() & trace_mask([](auto, auto h, auto q, auto kv) {
                            return (q / 40 == kv / 40) | (kv < 3 * h);
                          });
  const at::Tensor expected = attend(q, k, v, {.mask = mask}, "vanilla").output;
  for (const int64_t size : {16, 48, 128, 1024}) {
    const at::Tensor output = attend(q, k, v, {.mask = mask, .block_size = size}, "flex").output;
    EXPECT_TRUE(at::allclose(output, expected, 1e-5, 1e-5)) << size;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, FlexCpu, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

}  // namespace
}  // namespace nanoflex
