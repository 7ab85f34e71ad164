// The gradients of captured tensors that the CUDA backend computes with plain tensor operations,
// here on CPU tensors, against those of whole tensors in fp64.
#include "attention/cuda/captured_gradients.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "attention/backends.h"
#include "attention/flex/masks.h"
#include "attention/flex/tile_code.h"

namespace nanoflex {
namespace {

using flex::Captured;
using flex::trace_mask;
using flex::trace_score;

struct Problem {
  at::Tensor q, k, v, d_output, d_logsumexp;
};

Problem random_problem(int64_t T, int64_t S) {
  at::manual_seed(T + S);
  const auto random = [](at::IntArrayRef sizes) { return at::randn(sizes, at::kFloat); };
  return {random({2, 4, T, 8}), random({2, 2, S, 8}), random({2, 2, S, 8}), random({2, 4, T, 8}),
          random({2, 4, T})};
}

// For a mask that is also said as a band: kv <= q + right.
void expect_gradients(const Problem& p, const Spec& spec, FusedOptions options,
                      const std::vector<at::Tensor>& tensors) {
  const auto wide = [](const at::Tensor& x) { return x.to(at::kDouble); };
  const Attention truth = attend_plainly(wide(p.q), wide(p.k), wide(p.v), spec);
  const at::Tensor blind = truth.logsumexp.detach().isinf();
  const auto expected = torch::autograd::grad(
      {truth.output, truth.logsumexp}, tensors,
      {wide(p.d_output), wide(p.d_logsumexp).masked_fill(blind, 0)}, c10::nullopt, false, true);
  options.scale = scale_of(p.q, spec);
  options.score = spec.score;
  options.dropout = spec.dropout;
  const FusedResult result = {truth.output.detach().to(at::kFloat),
                              truth.logsumexp.detach().to(at::kFloat)};
  const auto found =
      cuda::captured_gradients(p.q, p.k, p.v, result, p.d_output, p.d_logsumexp, options);
  ASSERT_EQ(found.size(), tensors.size());
  for (size_t i = 0; i < found.size(); ++i) {
    const double error = (wide(found[i]) - wide(expected[i])).abs().max().item<double>();
    const double bound = 1e-5 * std::max(1.0, expected[i].abs().max().item<double>());
    EXPECT_TRUE(error <= bound) << "tensor " << i << ": error " << error << ", bound " << bound;
  }
}

at::Tensor leaf(at::IntArrayRef sizes) { return at::randn(sizes, at::kFloat).requires_grad_(); }

TEST(CapturedGradients, OfSlopesBiasesAndGates) {
  const Problem p = random_problem(20, 33);
  const at::Tensor slope = leaf({4}), bias = leaf({4, 65}), gate = leaf({2, 33}), one = leaf({});
  const Captured slopes("slopes", slope), biases("bias", bias), gates("gate", gate),
      ones("one", one);
  const auto score = trace_score([&](auto s, auto b, auto h, auto q, auto kv) {
    return s * sigmoid(gates[b][kv]) + slopes[h] * 0.05 * (kv - q) + biases[h][q - kv + 32] +
           biases[0][kv] * ones;
  });
  const auto mask = trace_mask([](auto, auto, auto q, auto kv) { return (q + kv) % 3 != 0; });
  expect_gradients(p, {.mask = flex::causal() & mask, .score = score, .need_logsumexp = true},
                   {.right = 0, .mask = mask}, flex::differentiable_tensors(score));
}

TEST(CapturedGradients, UnderDropout) {
  const Problem p = random_problem(24, 40);
  const at::Tensor slope = leaf({4});
  const Captured slopes("slopes", slope);
  const auto score = trace_score([&](auto s, auto, auto h, auto, auto) { return s * slopes[h]; });
  expect_gradients(p,
                   {.mask = flex::causal(),
                    .score = score,
                    .dropout = {.probability = 0.3, .seed = 5},
                    .need_logsumexp = true},
                   {.right = 0}, {slope});
}

// Rows that see nothing, and more queries than keys.
TEST(CapturedGradients, OfRowsThatSeeNothing) {
  const Problem p = random_problem(30, 12);
  const at::Tensor slope = leaf({4});
  const Captured slopes("slopes", slope);
  const auto score = trace_score([&](auto s, auto, auto h, auto, auto) { return s * slopes[h]; });
  expect_gradients(p, {.mask = flex::causal(), .score = score, .need_logsumexp = true},
                   {.right = 0}, {slope});
}

TEST(CapturedGradients, AnInfiniteDerivativeOfAZeroWeightGoesNowhere) {
  const Problem p = random_problem(16, 16);
  const at::Tensor slope = leaf({4});
  const Captured slopes("slopes", slope);
  const auto even = trace_mask([](auto, auto, auto q, auto kv) { return (q + kv) % 2 == 0; });
  const auto plain = trace_score([&](auto s, auto, auto h, auto, auto) { return s * slopes[h]; });
  const auto infinite = trace_score([&](auto s, auto, auto h, auto q, auto kv) {
    return select((q + kv) % 2 == 0, s * slopes[h], log(slopes[h] * 0.0) - 1.0);
  });
  const Spec masked = {.mask = even, .score = plain, .need_logsumexp = true};
  const Attention result = attend_plainly(p.q, p.k, p.v, masked);
  const FusedResult forward = {result.output.detach(), result.logsumexp.detach()};
  const double scale = scale_of(p.q, masked);
  const auto gradients = [&](const FusedOptions& options) {
    return cuda::captured_gradients(p.q, p.k, p.v, forward, p.d_output, p.d_logsumexp, options);
  };
  const auto expected = gradients({.scale = scale, .mask = even, .score = plain});
  const auto found = gradients({.scale = scale, .score = infinite});
  EXPECT_TRUE(found[0].allclose(expected[0])) << found[0] << expected[0];
}

}  // namespace
}  // namespace nanoflex
