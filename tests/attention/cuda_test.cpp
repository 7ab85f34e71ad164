// The fused kernels on a GPU; skipped where there is none. tests/simt runs the same sources
// anywhere.
#include <gtest/gtest.h>
#include <torch/autograd.h>

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
  for (const Backend& backend : backends()) {
    if (backend.name == "flash") {
      return backend.why_unsupported(q, q, q, {.mask = problem.mask}).empty();
    }
  }
  return false;
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

INSTANTIATE_TEST_SUITE_P(Types, FlashCuda, testing::Values(at::kBFloat16, at::kHalf, at::kFloat),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

}  // namespace
}  // namespace nanoflex
