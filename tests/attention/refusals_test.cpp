// What attend() refuses, and that it says so in words that help.
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>

#include "attention/registry.h"
#include "tests/attention/reference.h"

namespace nanoflex {
namespace {

struct Call {
  std::vector<int64_t> q = {1, 4, 8, 16}, k = {1, 2, 8, 16}, v = {1, 2, 8, 16};
  at::ScalarType dtype = at::kFloat, k_dtype = dtype;
  Spec spec = {};
  std::string backend = "auto";
};

std::string refusal_of(const Call& call) {
  const at::Tensor q = at::zeros(call.q, call.dtype), k = at::zeros(call.k, call.k_dtype);
  return refusal([&] { attend(q, k, at::zeros(call.v, call.dtype), call.spec, call.backend); });
}

TEST(Attend, NamesTheTensorThatDoesNotFit) {
  EXPECT_EQ(refusal_of({}), "");
  EXPECT_EQ(refusal_of({.q = {4, 8, 16}}),
            "[attention] q must have 4 dimensions [batch, heads, length, head_dim], is [4, 8, 16]");
  EXPECT_EQ(refusal_of({.k = {1, 2, 0, 16}}), "[attention] k must not be empty, is [1, 2, 0, 16]");
  EXPECT_EQ(refusal_of({.v = {1, 2, 9, 16}}),
            "[attention] k and v must have one shape, are [1, 2, 8, 16] and [1, 2, 9, 16]");
  EXPECT_EQ(refusal_of({.q = {2, 4, 8, 16}}), "[attention] k must have q's batch size 2, has 1");
  EXPECT_EQ(refusal_of({.q = {1, 4, 8, 20}}), "[attention] k must have q's head_dim 20, has 16");
  EXPECT_EQ(refusal_of({.q = {1, 3, 8, 16}}),
            "[attention] q's heads must be a multiple of k's, are 3 and 2");
  EXPECT_EQ(refusal_of({.q = {1, 2, 8, 320}, .k = {1, 2, 8, 320}, .v = {1, 2, 8, 320}}),
            "[attention] head_dim must be at most 256, is 320");
  EXPECT_EQ(refusal_of({.k_dtype = at::kBFloat16}),
            "[attention] k must have q's dtype Float, is BFloat16");
  EXPECT_EQ(refusal_of({.dtype = at::kLong}),
            "[attention] dtype must be float32, bfloat16, float16 or float64, is Long");
  EXPECT_EQ(refusal([] { attend({}, at::zeros(1), at::zeros(1)); }), "[attention] q is undefined");
}

TEST(Attend, NamesWhatIsWrongInTheSpec) {
  EXPECT_EQ(refusal_of({.spec = {.scale = 0}}),
            "[attention] scale must be finite and above 0, is 0");
  EXPECT_EQ(refusal_of({.spec = {.scale = std::numeric_limits<double>::infinity()}}),
            "[attention] scale must be finite and above 0, is inf");
  EXPECT_EQ(refusal_of({.spec = {.scale = 1e-46}}),
            "[attention] scale must be finite and above 0 in float32, is 1e-46");
  EXPECT_EQ(refusal_of({.dtype = at::kBFloat16, .spec = {.scale = 1e39}}),
            "[attention] scale must be finite and above 0 in float32, is 1e+39");
  EXPECT_EQ(refusal_of({.dtype = at::kDouble, .spec = {.scale = 1e-46}}), "");
  EXPECT_EQ(refusal_of({.spec = {.dropout = {.probability = 1}}}),
            "[attention] dropout must be at least 0 and below 1, is 1");
  EXPECT_EQ(refusal_of({.spec = {.dropout = {.probability = std::nan("")}}}),
            "[attention] dropout must be at least 0 and below 1, is nan");
  EXPECT_EQ(refusal_of({.spec = {.mask = flex::causal() & flex::document()}}),
            "[attention] mask 'causal & document' reads tensors that are not bound: document; "
            "bind() them");
  EXPECT_EQ(refusal_of({.spec = {.mask = flex::query_index()}}),
            "[expression] a mask must be a truth value, 'q' is a integer");
  EXPECT_EQ(refusal_of({.spec = {.mask = flex::score_value() > 0}}),
            "[expression] a mask cannot read the score: 'score > 0'");
  EXPECT_EQ(refusal_of({.spec = {.score = flex::causal()}}),
            "[expression] a score must be a number, 'causal' is a truth value; use select");
}

TEST(Attend, DocumentsMustCoverTheBatch) {
  const auto mask = flex::bind(flex::document(), {{"document", at::zeros({1, 5}, at::kLong)}});
  EXPECT_EQ(
      refusal_of({.spec = {.mask = mask}}),
      "[expression] tensor 'document' [1, 5] is read at 7 in dimension 1 (index 'q'); use 0 to 4");
}

TEST(Registry, NamesTheNearestBackend) {
  EXPECT_EQ(backend_names(),
            (std::vector<std::string>{"vanilla", "sdpa", "tiled", "flash", "flex"}));
  EXPECT_EQ(
      refusal_of({.backend = "vanila"}),
      "[attention] unknown backend 'vanila'; did you mean 'vanilla'? known: auto, vanilla, sdpa, "
      "tiled, flash, flex");
  EXPECT_EQ(refusal_of({.backend = "cudnn"}),
            "[attention] unknown backend 'cudnn'; known: auto, vanilla, sdpa, tiled, flash, flex");
}

TEST(Registry, ABackendThatCannotSaysWhyAndWhatCan) {
  EXPECT_EQ(
      refusal_of({.spec = {.mask = flex::causal() & flex::window(3)}, .backend = "sdpa"}),
      "[attention] backend 'sdpa' cannot run this: mask 'causal & window(3)' is neither 'causal' "
      "nor 'full'; use vanilla or tiled or flash or flex");
  EXPECT_EQ(
      refusal_of({.q = {1, 2, 4, 16}, .spec = {.mask = flex::causal()}, .backend = "sdpa"}),
      "[attention] backend 'sdpa' cannot run this: with mask 'causal' it needs as many queries as "
      "keys, or one query (T is 4, S is 8); use vanilla or tiled or flash or flex");
  EXPECT_EQ(
      refusal_of({.spec = {.need_logsumexp = true}, .backend = "sdpa"}),
      "[attention] backend 'sdpa' cannot run this: it does not give the logsumexp; use vanilla "
      "or tiled or flash or flex");
  const flex::Expression doubled = flex::score_value() * 2;
  EXPECT_EQ(
      refusal_of({.spec = {.score = doubled}, .backend = "sdpa"}),
      "[attention] backend 'sdpa' cannot run this: it takes no score expression ('score * 2'); "
      "use vanilla or flex");
  EXPECT_EQ(refusal_of({.spec = {.mask = flex::causal() | flex::window(3)}, .backend = "flash"}),
            "[attention] backend 'flash' cannot run this: mask 'causal | window(3)' is not a band "
            "of keys "
            "around the query; use vanilla or tiled or flex");
  EXPECT_EQ(refusal_of({.dtype = at::kDouble, .backend = "flash"}),
            "[attention] backend 'flash' cannot run this: its kernels take float32 and bfloat16, "
            "not Double; use vanilla or sdpa or tiled");
  EXPECT_EQ(refusal_of({.spec = {.dropout = {.probability = 0.5}}, .backend = "sdpa"}),
            "[attention] backend 'sdpa' cannot run this: its dropout has random bits of its own; "
            "use vanilla or flash or flex");
  EXPECT_EQ(
      refusal_of({.spec = {.score = doubled}, .backend = "tiled"}),
      "[attention] backend 'tiled' cannot run this: it takes no score expression yet ('score * "
      "2'); use vanilla or flex");
}

TEST(Registry, AutoTakesTheFirstThatCan) {
  const at::Tensor x = at::zeros({1, 1, 4, 8});
  const auto choice = [&](const Spec& spec) { return choose_backend("auto", x, x, x, spec).name; };
  EXPECT_EQ(choice({}), "flash");
  EXPECT_EQ(choice({.mask = flex::causal() & flex::window(2)}), "flash");
  EXPECT_EQ(choice({.mask = flex::causal() | flex::window(2)}), "flex");
  EXPECT_EQ(choice({.score = flex::score_value() / 2}), "flex");
}

std::vector<at::Tensor> second_derivative(const std::string& backend, at::ScalarType dtype) {
  at::manual_seed(1);
  const at::Tensor q = at::randn({1, 1, 5, 4}, dtype).requires_grad_();
  const at::Tensor k = at::randn_like(q), v = at::randn_like(q);
  const at::Tensor output = attend(q, k, v, {.mask = flex::causal()}, backend).output;
  const auto first =
      torch::autograd::grad({output.sin().sum()}, {q}, {}, {}, /*create_graph=*/true);
  return torch::autograd::grad({first[0].sin().sum()}, {q});
}

TEST(SecondDerivative, IsRefusedWithTheBackendThatHasIt) {
  EXPECT_EQ(refusal([] { second_derivative("tiled", at::kDouble); }),
            "[attention] backend 'tiled' has no second derivative; use 'vanilla', which has");
  EXPECT_EQ(refusal([] { second_derivative("flash", at::kFloat); }),
            "[attention] backend 'flash' has no second derivative; use 'vanilla', which has");
  EXPECT_TRUE(second_derivative("vanilla", at::kDouble)[0].isfinite().all().item<bool>());
}

}  // namespace
}  // namespace nanoflex
