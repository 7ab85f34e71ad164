#include "tests/attention/flex_cases.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>

#include "attention/cpu/fused_cpu.h"
#include "attention/flex/derivative.h"
#include "attention/flex/evaluate.h"
#include "attention/fused.h"
#include "attention/registry.h"

namespace nanoflex {
namespace {

using flex::Captured;
using flex::Expression;
using flex::trace_mask;
using flex::trace_score;

at::Tensor random(at::IntArrayRef sizes) {
  return at::randn(sizes, at::kFloat).requires_grad_();  // fp32 tensors hold fp64's truth exactly
}

at::Tensor documents(const FlexSizes& sizes) {
  return at::randint(0, 9, {sizes.B, sizes.S}, at::kLong).eq(0).cumsum(1);
}

}  // namespace

const std::vector<FlexSizes>& flex_sizes() {
  static const std::vector<FlexSizes> sizes = {{2, 2, 2, 37, 37, 16},  {1, 4, 2, 300, 300, 8},
                                               {2, 2, 1, 1, 200, 24},  {1, 3, 1, 9, 150, 40},
                                               {1, 2, 2, 150, 70, 16}, {1, 1, 1, 257, 257, 33}};
  return sizes;
}

std::vector<NamedFlex> flex_expressions() {
  return {
      {"documents",
       [](const FlexSizes& sizes) {
         const Captured document("document", documents(sizes));
         return Flex{.mask = flex::causal() & trace_mask([&](auto b, auto, auto q, auto kv) {
                               return document[b][max(q, 0)] == document[b][kv];
                             })};
       }},
      {"groups next to each other",
       [](const FlexSizes& sizes) {
         const at::Tensor slope = random({sizes.H});
         const Captured document("document", documents(sizes)), slopes("slopes", slope);
         const auto own = trace_mask(
             [&](auto b, auto, auto q, auto kv) { return document[b][kv] == document[b][q]; });
         const auto near = trace_mask([](auto, auto, auto q, auto kv) {
           return (q / 90 == kv / 90) & (kv - q <= 3) & (q - kv <= 70);
         });
         return Flex{.mask = sizes.T <= sizes.S ? near & own : near,
                     .score = trace_score([&](auto s, auto, auto h, auto q, auto kv) {
                       return s + slopes[h] * (kv - q);
                     }),
                     .tensors = {slope}};
       }},
      {"groups, both sides",
       [](const FlexSizes& sizes) {
         return Flex{.mask = sizes.T > sizes.S
                                 ? flex::full()
                                 : flex::bind(flex::document(), {{"document", documents(sizes)}})};
       }},
      {"prefix or every third",
       [](const FlexSizes&) {
         return Flex{.mask = trace_mask([](auto, auto h, auto q, auto kv) {
                       return ((q >= kv) & ((q - kv) % (h + 2) == 0)) | (kv < 5);
                     })};
       }},
      {"some heads see nothing",
       [](const FlexSizes&) {
         return Flex{.mask = trace_mask([](auto b, auto h, auto q, auto kv) {
                       return ((b + h) % 2 == 0) & (q % 5 != 3) & (kv / 16 != 1);
                     })};
       }},
      {"softcap",
       [](const FlexSizes&) {
         return Flex{.mask = flex::causal(),
                     .score = trace_score(
                         [](auto s, auto, auto, auto, auto) { return 2.0 * tanh(s / 2.0); })};
       }},
      {"learned slopes",
       [](const FlexSizes& sizes) {
         const at::Tensor slope = random({sizes.H});
         const Captured slopes("slopes", slope);
         return Flex{.mask = flex::causal(),
                     .score = trace_score([&](auto s, auto, auto h, auto q, auto kv) {
                       return s + slopes[h] * 0.05 * (kv - q);
                     }),
                     .tensors = {slope}};
       }},
      {"relative bias, indexed twice, and one a key",
       [](const FlexSizes& sizes) {
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
       [](const FlexSizes& sizes) {
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
       [](const FlexSizes&) {
         return Flex{.score =
                         trace_score([](auto, auto, auto h, auto, auto kv) { return kv % 5 - h; })};
       }},
  };
}

Tensors flex_inputs(const FlexSizes& sizes, at::ScalarType dtype) {
  const Case problem = {"", sizes.B, sizes.H, sizes.H_kv, sizes.T, sizes.S, sizes.D, {}, {}};
  Tensors inputs = random_inputs(problem, dtype);
  inputs.d_logsumexp = inputs.d_output.select(-1, 0).contiguous();
  return inputs;
}

FlexResult by_vanilla(const Tensors& inputs, const Flex& flex, at::ScalarType dtype) {
  const auto leaf = [&](const at::Tensor& x) { return x.to(dtype).detach().requires_grad_(); };
  const at::Tensor q = leaf(inputs.q), k = leaf(inputs.k), v = leaf(inputs.v);
  const Attention attention =
      attend(q, k, v, {.mask = flex.mask, .score = flex.score, .need_logsumexp = true}, "vanilla");
  std::vector<at::Tensor> wanted = {q, k, v};
  wanted.insert(wanted.end(), flex.tensors.begin(), flex.tensors.end());
  // Rows that see nothing have a logsumexp of -inf, which has no gradient.
  const at::Tensor blind = attention.logsumexp.detach() == -std::numeric_limits<double>::infinity();
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
  FlexResult result{.tensors = inputs, .captured = {}};
  result.tensors.output = attention.output.detach();
  result.tensors.logsumexp = attention.logsumexp.detach();
  const auto given = [&](size_t i) {
    return gradients[i].defined() ? gradients[i] : at::zeros_like(wanted[i]);
  };
  result.tensors.dq = given(0), result.tensors.dk = given(1), result.tensors.dv = given(2);
  for (size_t i = 3; i < wanted.size(); ++i) result.captured.push_back(given(i));
  return result;
}

FlexResult by_kernels(const cpu::KernelSet& kernels, const Tensors& inputs, const Flex& flex,
                      at::ScalarType dtype, bool need_logsumexp) {
  const at::Tensor q = inputs.q.to(dtype), k = inputs.k.to(dtype), v = inputs.v.to(dtype);
  const FusedOptions options = fused_options(
      q, k, {.mask = flex.mask, .score = flex.score, .need_logsumexp = need_logsumexp});
  const FusedResult forward = cpu::forward(q, k, v, options, kernels);
  const FusedGradients gradients =
      cpu::backward(q, k, v, forward, inputs.d_output.to(dtype), inputs.d_logsumexp.to(at::kFloat),
                    options, kernels);
  FlexResult result{.tensors = inputs, .captured = gradients.captured};
  result.tensors.output = forward.output;
  result.tensors.logsumexp = need_logsumexp ? forward.logsumexp : at::Tensor();
  result.tensors.dq = gradients.dq, result.tensors.dk = gradients.dk;
  result.tensors.dv = gradients.dv;
  return result;
}

double flex_error(const at::Tensor& x, const at::Tensor& truth) {
  return (x.to(at::kDouble) - truth.to(at::kDouble)).abs().max().item<double>();
}

namespace {

// What the expression gives for each pair's scaled score.
at::Tensor values_of(const flex::Expression& expression, const Tensors& in) {
  const at::Tensor k = in.k.repeat_interleave(in.q.size(1) / in.k.size(1), 1);
  const at::Tensor scores =
      at::matmul(in.q, k.transpose(-2, -1)) / std::sqrt(static_cast<double>(in.q.size(3)));
  return flex::evaluate(expression, {.B = scores.size(0),
                                     .H = scores.size(1),
                                     .T = scores.size(2),
                                     .S = scores.size(3),
                                     .score = scores})
      .detach();
}

double largest_finite(const at::Tensor& x) {
  return at::where(x.isfinite(), x.abs(), at::zeros_like(x)).max().item<double>();
}

// Of what a gradient of a captured tensor sums: the derivative by it, over all pairs; at least 1.
double largest_derivative(const Tensors& in, const Flex& flex) {
  double largest = 1;
  if (!flex.score.defined()) return largest;
  for (const flex::CapturedRead& read : flex::captured_reads(flex.score)) {
    const at::Tensor value = values_of(read.derivative, in);
    const double most = value.abs().nan_to_num(0, 0).max().item<double>();
    largest = std::max(largest, most);
  }
  return largest;
}

}  // namespace

void expect_as_exact(const FlexResult& result, const FlexResult& plain, const FlexResult& truth,
                     const Flex& flex, at::ScalarType dtype) {
  const double score =
      flex.score.defined() ? largest_finite(values_of(flex.score, truth.tensors)) : 0;
  expect_all_close(result.tensors, plain.tensors, truth.tensors, score);
  ASSERT_EQ(result.captured.size(), truth.captured.size());
  const double unit = dtype == at::kFloat ? 0x1p-23 : 0x1p-7;
  const Tensors& in = truth.tensors;
  const double term =
      largest_derivative(in, flex) *
      at::matmul(in.d_output.abs().amax({0, 1, 2}), in.v.abs().amax({0, 1, 2})).item<double>();
  for (size_t i = 0; i < truth.captured.size(); ++i) {
    const double largest = std::max(term, truth.captured[i].abs().max().item<double>());
    const double bound = 2 * flex_error(plain.captured[i], truth.captured[i]) + unit * largest;
    const double found = flex_error(result.captured[i], truth.captured[i]);
    EXPECT_TRUE(found <= bound) << "captured tensor " << i << ": error " << found << ", bound "
                                << bound;
  }
}

}  // namespace nanoflex
