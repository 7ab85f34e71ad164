// The fused kernels on a GPU; skipped where there is none. tests/simt runs the same sources
// anywhere.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

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

bool flash_runs(const Case& problem, at::ScalarType dtype) {
  const at::Tensor q = at::empty({1, 1, 1, problem.D}, at::TensorOptions(at::kCUDA).dtype(dtype));
  return named_backend("flash").why_unsupported(q, q, q, {.mask = problem.mask}).empty();
}

TEST_P(FlashCuda, IsAsExactAsThePlainFormula) {
  int ran = 0;
  for (const Case& problem : cases()) {
    if (!flash_runs(problem, GetParam())) continue;
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

using Results = std::vector<at::Tensor>;

/// q, k, v, what a spec captures in fp32, and the gradient of attention's output.
struct Inputs {
  Results tensors;
  at::Tensor d_output;
};
using MakeSpec = std::function<Spec(const Results& leaves)>;

Inputs random_inputs(at::ScalarType dtype, int64_t B, int64_t H, int64_t H_kv, int64_t T, int64_t S,
                     int64_t D) {
  const auto random = [&](at::IntArrayRef sizes) { return at::randn(sizes).to(dtype); };
  return {{random({B, H, T, D}), random({B, H_kv, S, D}), random({B, H_kv, S, D})},
          random({B, H, T, D})};
}

// The gradients of all that goes in, and the output.
Results results_of(const Inputs& inputs, const MakeSpec& make, at::Device device,
                   at::ScalarType dtype, const std::string& backend) {
  Results leaves;
  for (size_t i = 0; i < inputs.tensors.size(); ++i) {
    const at::Tensor x = inputs.tensors[i].to(device, i < 3 ? dtype : at::kFloat);
    leaves.push_back(x.detach().requires_grad_());
  }
  const at::Tensor output = attend(leaves[0], leaves[1], leaves[2], make(leaves), backend).output;
  Results results = torch::autograd::grad({output}, leaves, {inputs.d_output.to(device, dtype)});
  results.push_back(output.detach());
  for (at::Tensor& x : results) x = x.to(at::kCPU, at::kDouble);
  return results;
}

// Errs at most twice as much as the plain formula on the same GPU, and gives the same bits twice.
void expect_as_exact(const Inputs& inputs, const MakeSpec& make, at::ScalarType dtype,
                     const std::string& backend) {
  const Results truth = results_of(inputs, make, at::kCPU, at::kDouble, "vanilla");
  const Results by_formula = results_of(inputs, make, at::kCUDA, dtype, "vanilla");
  const Results found = results_of(inputs, make, at::kCUDA, dtype, backend);
  const Results again = results_of(inputs, make, at::kCUDA, dtype, backend);
  const auto error = [&](const Results& x, size_t i) {
    return (x[i] - truth[i]).abs().max().item<double>();
  };
  const double unit = dtype == at::kBFloat16 ? 0x1p-7 : dtype == at::kHalf ? 0x1p-10 : 0x1p-20;
  for (size_t i = 0; i < truth.size(); ++i) {
    const double bound = 2 * error(by_formula, i) + unit * truth[i].abs().max().item<double>();
    EXPECT_TRUE(error(found, i) <= bound)
        << "result " << i << ": " << error(found, i) << " > " << bound;
    EXPECT_TRUE(found[i].equal(again[i])) << "result " << i;
  }
}

// Of every head size that has kernels of its own, over more keys than are held at once.
TEST_P(FlashCuda, IsAsExactInEveryHeadSize) {
  at::manual_seed(4);
  for (const int64_t D : {16, 32, 64, 80, 96, 128, 192, 256}) {
    for (const double dropout : {0.0, 0.1}) {
      SCOPED_TRACE(c10::str("D ", D, ", dropout ", dropout));
      expect_as_exact(
          random_inputs(GetParam(), 2, 4, 2, 250, 250, D),
          [&](const Results&) {
            return Spec{.mask = flex::causal(), .dropout = {dropout, 5}};
          },
          GetParam(), "flash");
    }
  }
}

// Few queries, whose keys are dealt to several blocks; so many heads that they are not; few keys.
TEST_P(FlashCuda, Decodes) {
  at::manual_seed(5);
  struct Sizes {
    int64_t B, H, H_kv, T, S, D;
  };
  for (const Sizes& s : std::vector<Sizes>{{1, 4, 1, 1, 1000, 128},
                                           {1, 4, 4, 3, 1000, 64},
                                           {2, 4, 2, 200, 600, 80},
                                           {64, 16, 8, 1, 300, 64},
                                           {64, 16, 8, 1, 200, 64}}) {
    SCOPED_TRACE(c10::str("B ", s.B, " H ", s.H, " T ", s.T, " S ", s.S, " D ", s.D));
    expect_as_exact(
        random_inputs(GetParam(), s.B, s.H, s.H_kv, s.T, s.S, s.D),
        [&](const Results&) { return Spec{.mask = flex::causal()}; }, GetParam(), "flash");
  }
}

TEST_P(FlashCuda, ReadsRowsThatLieAnywhere) {
  at::manual_seed(6);
  const Inputs inputs = random_inputs(GetParam(), 1, 2, 2, 70, 70, 64);
  const auto shifted = [&](const at::Tensor& x) {  // by one number, so that no row is aligned
    const at::Tensor memory = at::empty({x.numel() + 1}, x.options().device(at::kCUDA));
    return memory.narrow(0, 1, x.numel()).view(x.sizes()).copy_(x);
  };
  const Spec spec = {.mask = flex::causal()};
  const Results& x = inputs.tensors;
  const auto output = [&](const auto& place) {
    return attend(place(x[0]), place(x[1]), place(x[2]), spec, "flash").output;
  };
  EXPECT_TRUE(output(shifted).equal(output([](const at::Tensor& t) { return t.cuda(); })));
}

TEST_P(FlashCuda, WhatIsNotFiniteReachesOnlyWhoSeesIt) {
  at::manual_seed(7);
  const auto run = [&](const Inputs& inputs) {
    const auto causal = [](const Results&) { return Spec{.mask = flex::causal()}; };
    return results_of(inputs, causal, at::kCUDA, GetParam(), "flash");
  };
  const Inputs clean = random_inputs(GetParam(), 1, 2, 2, 200, 200, 64);
  const Results before = run(clean);
  const auto same = [&](const Results& now, size_t i, int64_t start, int64_t rows) {
    return now[i].narrow(2, start, rows).equal(before[i].narrow(2, start, rows));
  };
  Inputs bad = {{clean.tensors[0], clean.tensors[1].clone(), clean.tensors[2].clone()},
                clean.d_output.clone()};
  bad.tensors[1].select(2, 100).fill_(std::nan(""));
  bad.tensors[2].select(2, 100).fill_(INFINITY);
  const Results late = run(bad);  // of a key that the first rows do not see
  EXPECT_TRUE(same(late, 0, 0, 100) && same(late, 3, 0, 100));
  EXPECT_TRUE(late[0].select(2, 100).isnan().all().item<bool>());
  bad = {clean.tensors, bad.d_output};
  bad.d_output.select(2, 50).fill_(std::nan(""));
  const Results early = run(bad);  // of a row that does not see the last keys
  EXPECT_TRUE(same(early, 1, 51, 149) && same(early, 2, 51, 149) && same(early, 0, 51, 149));
  EXPECT_TRUE(early[2].select(2, 50).isnan().all().item<bool>());
}

// Documents and a learned bias under a soft cap: every part of a program, and the gradient of what
// it captures.
TEST_P(FlashCuda, RunsMasksAndScores) {
  at::manual_seed(3);
  const int64_t B = 2, H = 4, T = 200, S = 300;
  Inputs inputs = random_inputs(GetParam(), B, H, 2, T, S, 64);
  inputs.tensors.push_back(at::randn({H, 2 * S - 1}));
  const at::Tensor numbers = at::randint(0, 20, {B, S}, at::kLong).eq(0).cumsum(1);
  const auto make = [&](const Results& leaves) {
    const flex::Captured document("document", numbers.to(leaves[0].device()));
    const flex::Captured bias("bias", leaves[3]);
    return Spec{.mask = flex::causal() & flex::trace_mask([&](auto b, auto, auto q, auto kv) {
                          return document[b][q] == document[b][kv];
                        }),
                .score = flex::trace_score([&](auto s, auto, auto h, auto q, auto kv) {
                  return 5.0 * tanh((s + bias[h][q - kv + (S - 1)]) / 5.0);
                })};
  };
  expect_as_exact(inputs, make, GetParam(), "flex");
}

INSTANTIATE_TEST_SUITE_P(Types, FlashCuda, testing::Values(at::kBFloat16, at::kHalf, at::kFloat),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

}  // namespace
}  // namespace nanoflex
