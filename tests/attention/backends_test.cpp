// Every registered backend against the definition in fp64.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "attention/registry.h"
#include "tests/attention/accuracy.h"
#include "tests/attention/reference.h"

namespace nanoflex {
namespace {

bool runs(const std::string& backend, const Case& problem, at::ScalarType dtype,
          bool with_logsumexp) {
  const Tensors inputs = random_inputs(problem, at::kDouble);
  const Spec spec = {.mask = problem.mask, .need_logsumexp = with_logsumexp};
  return named_backend(backend)
      .why_unsupported(inputs.q.to(dtype), inputs.k.to(dtype), inputs.v.to(dtype), spec)
      .empty();
}

std::vector<Case> cases_of(const std::string& backend, at::ScalarType dtype, bool with_logsumexp) {
  std::vector<Case> able;
  for (const Case& problem : cases()) {
    if (runs(backend, problem, dtype, with_logsumexp)) able.push_back(problem);
  }
  return able;
}

// Backends that do the arithmetic of this type at all.
std::vector<std::string> names_with(at::ScalarType dtype) {
  std::vector<std::string> able;
  for (const std::string& name : backend_names()) {
    if (runs(name, cases().front(), dtype, false)) able.push_back(name);
  }
  return able;
}

class EveryBackend : public testing::TestWithParam<std::tuple<std::string, at::ScalarType>> {
 protected:
  std::string backend() const { return std::get<0>(GetParam()); }
  at::ScalarType dtype() const { return std::get<1>(GetParam()); }
};

TEST_P(EveryBackend, IsAsExactAsThePlainFormula) {
  for (const bool with_logsumexp : {false, true}) {
    for (const Case& problem : cases_of(backend(), dtype(), with_logsumexp)) {
      SCOPED_TRACE(problem.name);
      Tensors inputs = random_inputs(problem, dtype());
      if (with_logsumexp) inputs.d_logsumexp = inputs.d_output.select(-1, 0).contiguous();
      const Tensors truth = by_definition(problem, inputs);
      const Tensors plain = by_plain_formula(problem, inputs, dtype());
      const Tensors result = by_backend(backend(), problem, inputs, dtype(), with_logsumexp);
      expect_all_close(result, plain, truth);
    }
  }
}

TEST_P(EveryBackend, GivesTheSameBitsTwice) {
  for (const Case& problem : cases_of(backend(), dtype(), false)) {
    SCOPED_TRACE(problem.name);
    const Tensors inputs = random_inputs(problem, dtype());
    const Tensors first = by_backend(backend(), problem, inputs, dtype(), false);
    const Tensors second = by_backend(backend(), problem, inputs, dtype(), false);
    EXPECT_TRUE(first.output.equal(second.output));
    EXPECT_TRUE(first.dq.equal(second.dq));
    EXPECT_TRUE(first.dk.equal(second.dk));
    EXPECT_TRUE(first.dv.equal(second.dv));
  }
}

// The model hands over [B, T, H, D] seen as [B, H, T, D].
TEST_P(EveryBackend, TakesStridedInputs) {
  if (cases_of(backend(), dtype(), false).empty()) GTEST_SKIP() << "does not take this type";
  const Case problem = cases().at(1);
  const Tensors inputs = random_inputs(problem, dtype());
  Tensors strided = inputs;
  for (at::Tensor* x : {&strided.q, &strided.k, &strided.v, &strided.d_output}) {
    *x = x->transpose(1, 2).contiguous().transpose(1, 2);
  }
  const Tensors truth = by_definition(problem, inputs);
  const Tensors plain = by_plain_formula(problem, inputs, dtype());
  const Tensors result = by_backend(backend(), problem, strided, dtype(), false);
  expect_all_close(result, plain, truth);
}

std::string test_name(const testing::TestParamInfo<EveryBackend::ParamType>& info) {
  return std::get<0>(info.param) + "_" + c10::toString(std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(Names, EveryBackend,
                         testing::Combine(testing::ValuesIn(backend_names()),
                                          testing::Values(at::kFloat, at::kBFloat16, at::kDouble)),
                         test_name);

class Gradients : public testing::TestWithParam<std::string> {};

// d f / d x[i] by central differences, for f a scalar of fp64 tensors.
void expect_central_differences(const std::function<at::Tensor()>& f, at::Tensor x) {
  const at::Tensor gradient = torch::autograd::grad({f()}, {x})[0].flatten();
  const at::NoGradGuard no_grad;
  const double step = 1e-5;
  at::Tensor values = x.detach().view(-1);
  for (int64_t i = 0; i < values.numel(); ++i) {
    const double at_rest = values[i].item<double>();
    values[i] = at_rest + step;
    const double above = f().item<double>();
    values[i] = at_rest - step;
    const double below = f().item<double>();
    values[i] = at_rest;
    const double found = gradient[i].item<double>(), expected = (above - below) / (2 * step);
    EXPECT_TRUE(std::abs(found - expected) <= 1e-8 * std::max(1.0, std::abs(expected)))
        << "element " << i << ": " << found << ", by differences " << expected;
  }
}

at::Tensor random_leaf(at::IntArrayRef shape) {
  return at::randn(shape, at::kDouble).requires_grad_();
}

TEST_P(Gradients, AgreeWithCentralDifferences) {
  at::manual_seed(3);
  const at::Tensor q = random_leaf({1, 4, 5, 3}), k = random_leaf({1, 2, 7, 3}),
                   v = random_leaf({1, 2, 7, 3});
  const at::Tensor weight = at::randn({1, 4, 5, 3}, at::kDouble);
  const bool logsumexp = GetParam() != "sdpa";
  const Spec spec = {.mask = logsumexp ? flex::causal() & flex::window(2) : flex::full(),
                     .scale = 0.7,
                     .need_logsumexp = logsumexp};
  const auto f = [&] {
    const Attention result = attend(q, k, v, spec, GetParam());
    const at::Tensor sum = (result.output * weight).sum();
    return logsumexp ? sum + result.logsumexp.sin().sum() : sum;
  };
  for (const at::Tensor& x : {q, k, v}) expect_central_differences(f, x);
}

INSTANTIATE_TEST_SUITE_P(Names, Gradients, testing::ValuesIn(names_with(at::kDouble)),
                         [](const auto& info) { return info.param; });

class ScoreBackends : public testing::TestWithParam<std::string> {};

// In fp64, which only plain tensors do; flex_test.cpp holds the kernels against them.
TEST(Vanilla, DifferentiatesScoresAndWhatTheyCapture) {
  at::manual_seed(4);
  const at::Tensor q = random_leaf({2, 2, 4, 3}), k = random_leaf({2, 1, 5, 3}),
                   v = random_leaf({2, 1, 5, 3});
  const at::Tensor slopes = random_leaf({2}), bias = random_leaf({2, 9});
  const flex::Captured slope("slope", slopes), table("bias", bias);
  const Spec spec = {.mask = flex::causal(),
                     .score = flex::trace_score([&](auto score, auto, auto h, auto q, auto kv) {
                       return 2 *
                              flex::tanh((score + slope[h] * (kv - q) + table[h][q - kv + 4]) / 2);
                     })};
  const auto f = [&] { return attend(q, k, v, spec, "vanilla").output.sin().sum(); };
  for (const at::Tensor& x : {q, k, v, slopes, bias}) expect_central_differences(f, x);
}

TEST_P(ScoreBackends, ScoresThatAreNotFiniteAtMaskedPairsDoNotLeak) {
  at::manual_seed(5);
  const auto leaf = [] { return at::randn({1, 1, 6, 4}).requires_grad_(); };
  const at::Tensor q = leaf(), k = leaf(), v = leaf();
  const Spec spec = {.mask = flex::causal(),
                     .score = flex::trace_score([](auto score, auto, auto, auto q, auto kv) {
                       return score + flex::log(flex::max(q - kv + 1, 0)) + flex::sqrt(q - kv);
                     })};
  const Attention result = attend(q, k, v, spec, GetParam());
  EXPECT_TRUE(result.output.isfinite().all().item<bool>());
  for (const at::Tensor& gradient : torch::autograd::grad({result.output.sum()}, {q, k, v})) {
    EXPECT_TRUE(gradient.isfinite().all().item<bool>());
  }
}

INSTANTIATE_TEST_SUITE_P(Names, ScoreBackends, testing::Values("vanilla", "flex"),
                         [](const auto& info) { return info.param; });

class DocumentBackends : public testing::TestWithParam<std::string> {};

struct FirstDocument {
  at::Tensor output, dq, dk, dv;
};

// Results for the first 19 of 33 positions, and the gradients of their sum everywhere.
FirstDocument first_document(const Case& problem, const Tensors& inputs,
                             const std::string& backend) {
  const auto leaf = [](const at::Tensor& x) { return x.to(at::kFloat).requires_grad_(); };
  const at::Tensor q = leaf(inputs.q), k = leaf(inputs.k), v = leaf(inputs.v);
  const at::Tensor output = attend(q, k, v, {.mask = problem.mask}, backend).output.slice(2, 0, 19);
  const auto gradients = torch::autograd::grad({output.sin().sum()}, {q, k, v});
  return {output.detach(), gradients[0], gradients[1], gradients[2]};
}

TEST_P(DocumentBackends, DocumentsInOneRowNeverTouchEachOther) {
  const at::Tensor documents = at::arange(33).ge(19).to(at::kLong).unsqueeze(0);
  for (const flex::Expression& mask : {flex::document(), flex::causal() & flex::document()}) {
    const Case problem = {
        "two documents", 1, 4, 2, 33, 33, 20, flex::bind(mask, {{"document", documents}}), nullptr};
    const Tensors inputs = random_inputs(problem, at::kFloat);
    Tensors changed = random_inputs(problem, at::kFloat, 2);
    for (auto [x, y] :
         {std::pair{inputs.q, changed.q}, {inputs.k, changed.k}, {inputs.v, changed.v}}) {
      y.slice(2, 0, 19).copy_(x.slice(2, 0, 19));
    }
    const FirstDocument before = first_document(problem, inputs, GetParam());
    const FirstDocument after = first_document(problem, changed, GetParam());
    EXPECT_TRUE(before.output.equal(after.output));
    for (auto [x, y] :
         {std::pair{before.dq, after.dq}, {before.dk, after.dk}, {before.dv, after.dv}}) {
      EXPECT_TRUE(x.equal(y));
      EXPECT_TRUE(x.slice(2, 19).eq(0).all().item<bool>());
    }
  }
}

// Their backward pass looks at the mask once more.
TEST_P(DocumentBackends, NoticeAMaskThatChangedBetweenThePasses) {
  if (GetParam() == "vanilla") GTEST_SKIP() << "it keeps what it made of the mask";
  const at::Tensor documents = at::arange(33).ge(19).to(at::kLong).unsqueeze(0);
  const flex::Expression mask = flex::trace_mask([&](auto b, auto, auto q, auto kv) {
    const flex::Captured document("document", documents);
    return document[b][kv] <= q;
  });
  const at::Tensor q = at::randn({1, 1, 33, 8}).requires_grad_();
  const at::Tensor output = attend(q, q, q, {.mask = mask}, GetParam()).output;
  documents.fill_(40);
  EXPECT_THROW(output.sum().backward(), c10::Error);
}

INSTANTIATE_TEST_SUITE_P(Names, DocumentBackends, testing::Values("vanilla", "tiled", "flex"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace nanoflex
