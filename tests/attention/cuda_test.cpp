// The fused kernels on a GPU; skipped where there is none. tests/simt runs the same sources
// anywhere.
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "attention/flex/masks.h"
#include "attention/registry.h"
#include "tests/attention/accuracy.h"
#include "tests/attention/reference.h"

namespace nanoflex {
namespace {

class FlashCuda : public testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "there is no GPU here";
  }
};

Tensors on_gpu(const Case& problem, const Tensors& inputs, at::ScalarType dtype,
               const Dropout& dropout = {}) {
  const auto leaf = [&](const at::Tensor& x) {
    return x.to(at::kCUDA, dtype).detach().requires_grad_();
  };
  const at::Tensor q = leaf(inputs.q), k = leaf(inputs.k), v = leaf(inputs.v);
  const Spec spec = {.mask = problem.mask, .dropout = dropout, .need_logsumexp = true};
  const Attention result = attend(q, k, v, spec, "flash");
  const auto gradients = torch::autograd::grad(
      {result.output, result.logsumexp}, {q, k, v},
      {inputs.d_output.to(at::kCUDA, dtype), inputs.d_logsumexp.to(at::kCUDA, at::kFloat)});
  Tensors all = inputs;
  all.output = result.output.detach().cpu(), all.logsumexp = result.logsumexp.detach().cpu();
  all.dq = gradients[0].cpu(), all.dk = gradients[1].cpu(), all.dv = gradients[2].cpu();
  return all;
}

bool runs(const Case& problem, at::ScalarType dtype) {
  const at::Tensor q = at::empty({1, 1, 1, problem.D}, at::TensorOptions(at::kCUDA).dtype(dtype));
  return named_backend("flash").why_unsupported(q, q, q, {.mask = problem.mask}).empty();
}

TEST_P(FlashCuda, IsAsExactAsThePlainFormula) {
  int ran = 0;
  for (const Case& problem : cases()) {
    if (!runs(problem, GetParam())) continue;
    SCOPED_TRACE(problem.name);
    Tensors inputs = random_inputs(problem, GetParam());
    inputs.d_logsumexp = inputs.d_output.select(-1, 0).contiguous();
    expect_all_close(on_gpu(problem, inputs, GetParam()),
                     by_plain_formula(problem, inputs, GetParam()), by_definition(problem, inputs));
    ++ran;
  }
  EXPECT_GE(ran, 8);
}

TEST_P(FlashCuda, GivesTheSameBitsTwice) {
  const Case problem = cases().at(4);
  const Tensors inputs = random_inputs(problem, GetParam());
  const Tensors first = on_gpu(problem, inputs, GetParam());
  const Tensors second = on_gpu(problem, inputs, GetParam());
  EXPECT_TRUE(first.output.equal(second.output) && first.dq.equal(second.dq));
  EXPECT_TRUE(first.dk.equal(second.dk) && first.dv.equal(second.dv));
}

// Documents and a learned bias under a soft cap: every part of a program, and the gradient of what
// it captures.
TEST_P(FlashCuda, RunsMasksAndScores) {
  at::manual_seed(3);
  const int64_t B = 2, H = 4, T = 200, S = 300, D = 64;
  const auto plain = [&](at::IntArrayRef sizes) { return at::randn(sizes).to(GetParam()); };
  const std::vector<at::Tensor> inputs = {plain({B, H, T, D}), plain({B, 2, S, D}),
                                          plain({B, 2, S, D}), at::randn({H, 2 * S - 1})};
  const at::Tensor numbers = at::randint(0, 20, {B, S}, at::kLong).eq(0).cumsum(1);
  const at::Tensor d_output = plain({B, H, T, D});
  const auto run = [&](at::Device device, at::ScalarType dtype, const std::string& backend) {
    std::vector<at::Tensor> leaves;
    for (const at::Tensor& x : inputs) {
      const bool captured = x.dim() == 2;
      leaves.push_back(x.to(device, captured ? at::kFloat : dtype).detach().requires_grad_());
    }
    const flex::Captured document("document", numbers.to(device)), bias("bias", leaves[3]);
    const Spec spec = {
        .mask = flex::causal() & flex::trace_mask([&](auto b, auto, auto q, auto kv) {
                  return document[b][q] == document[b][kv];
                }),
        .score = flex::trace_score([&](auto s, auto, auto h, auto q, auto kv) {
          return 5.0 * tanh((s + bias[h][q - kv + (S - 1)]) / 5.0);
        })};
    const at::Tensor output = attend(leaves[0], leaves[1], leaves[2], spec, backend).output;
    std::vector<at::Tensor> results =
        torch::autograd::grad({output}, leaves, {d_output.to(device, dtype)});
    results.push_back(output.detach());
    for (at::Tensor& x : results) x = x.to(at::kCPU, at::kDouble);
    return results;
  };
  const auto truth = run(at::kCPU, at::kDouble, "vanilla");
  const auto by_formula = run(at::kCUDA, GetParam(), "vanilla");
  const auto found = run(at::kCUDA, GetParam(), "flex");
  const auto error = [&](const std::vector<at::Tensor>& x, size_t i) {
    return (x[i] - truth[i]).abs().max().item<double>();
  };
  const double unit = GetParam() == at::kBFloat16 ? 0x1p-7
                      : GetParam() == at::kHalf   ? 0x1p-10
                                                  : 0x1p-20;
  for (size_t i = 0; i < truth.size(); ++i) {
    const double bound = 2 * error(by_formula, i) + unit * truth[i].abs().max().item<double>();
    EXPECT_TRUE(error(found, i) <= bound)
        << "result " << i << ": " << error(found, i) << " > " << bound;
  }
  const auto again = run(at::kCUDA, GetParam(), "flex");
  for (size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(found[i].equal(again[i])) << i;
}

INSTANTIATE_TEST_SUITE_P(Types, FlashCuda, testing::Values(at::kBFloat16, at::kHalf, at::kFloat),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

}  // namespace
}  // namespace nanoflex
