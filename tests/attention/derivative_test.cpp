#include "attention/flex/derivative.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "attention/flex/evaluate.h"
#include "attention/flex/parse.h"
#include "tests/attention/random_expression.h"

namespace nanoflex::flex {
namespace {

constexpr int64_t kB = 2, kH = 3, kT = 4, kS = 5;

const Vocabulary kBiasAndScale = {{{"bias", Type::kFloat}, {"scale", Type::kFloat}}};

std::string derivative_text(const std::string& score) {
  return to_text(derivative(parse_score(score, kBiasAndScale)));
}

std::string reads_text(const std::string& score) {
  std::string text;
  for (const CapturedRead& one : captured_reads(parse_score(score, kBiasAndScale))) {
    text += (text.empty() ? "" : "; ") + to_text(one.read) + ": " + to_text(one.derivative);
  }
  return text;
}

at::Tensor values(const Expression& e, const at::Tensor& score) {
  return evaluate(e, {.B = kB, .H = kH, .T = kT, .S = kS, .score = score}).expand({kB, kH, kT, kS});
}

TEST(Derivative, IsWhatOneWouldWrite) {
  EXPECT_EQ(derivative_text("score"), "1.0");
  EXPECT_EQ(derivative_text("alibi"), "1.0");
  EXPECT_EQ(derivative_text("3 * score * q"), "3.0 * q");
  EXPECT_EQ(derivative_text("bias[h]"), "0.0");
  EXPECT_EQ(derivative_text("q - kv"), "0.0");
  EXPECT_EQ(derivative_text("floor(score) * 1.5 + select(score < 0, 1, 2)"), "0.0");
  EXPECT_EQ(derivative_text("tanh(score)"), "1.0 - tanh(score) * tanh(score)");
  EXPECT_EQ(derivative_text("8 * tanh(score / 8)"), "1.0 - tanh(score / 8) * tanh(score / 8)");
  EXPECT_EQ(derivative_text("exp(score)"), "exp(score)");
  EXPECT_EQ(derivative_text("log(score)"), "1.0 / score");
  EXPECT_EQ(derivative_text("select(causal, score, -inf)"), "select(causal, 1.0, 0.0)");
}

TEST(Derivative, SplitsTiesInHalfAndIsZeroWhereAbsTurns) {
  const at::Tensor at_zero = at::zeros({1, 1, 1, 1}, at::kDouble);
  const auto slope = [&](const std::string& text) {
    return values(derivative(parse_score(text)), at_zero)[0][0][0][0].item<double>();
  };
  EXPECT_EQ(slope("min(score, 0)"), 0.5);
  EXPECT_EQ(slope("max(3 * score, 0)"), 1.5);
  EXPECT_EQ(slope("max(3 * score, score)"), 2.0);
  EXPECT_EQ(slope("abs(score)"), 0.0);
}

TEST(Derivative, NeverLetsInWhatTheOtherSideMakes) {
  const at::Tensor score = at::full({1, 1, 1, 1}, -1.0, at::kDouble);
  const Expression root =
      parse_score("exp(select(score > 0, sqrt(score) + log(score), 2 * score))");
  const auto found = values(derivative(root), score)[0][0][0][0].item<double>();
  EXPECT_TRUE(std::abs(found - 2 * std::exp(-2)) <= 1e-15);
}

// Central differences with two steps, which disagree where sides of a kink or a jump are near.
TEST(Derivative, AgreesWithCentralDifferencesOfRandomScores) {
  int64_t checked = 0, all = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    std::mt19937_64 random(seed);
    RandomExpression make = {.random = random, .B = kB, .H = kH, .T = kT, .S = kS};
    make.tensors = random_tensors(random, kB, kH, kS, at::kDouble);
    const Expression score = make.score(4);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + to_text(score));
    const at::Tensor x = at::randn({kB, kH, kT, kS}, at::kDouble);
    const auto difference = [&](double step) {
      return (values(score, x + step) - values(score, x - step)) / (2 * step);
    };
    const Expression slope = derivative(score);
    ASSERT_EQ(slope.type(), Type::kFloat);
    const at::Tensor found = values(slope, x), wide = difference(1e-5), close = difference(3e-6);
    const at::Tensor smooth = (wide - close).abs() <= 1e-5 * (1 + close.abs());
    const at::Tensor right = (found - close).abs() <= 1e-4 * (1 + close.abs());
    EXPECT_TRUE(smooth.logical_not().logical_or(right).all().item<bool>()) << to_text(slope);
    checked += smooth.sum().item<int64_t>();
    all += x.numel();
  }
  EXPECT_TRUE(10 * checked >= 9 * all) << checked << " of " << all;
}

TEST(CapturedReads, AreEachDifferentReadOnce) {
  EXPECT_EQ(reads_text("score + 1"), "");
  EXPECT_EQ(reads_text("alibi"), "alibi_slopes[h]: 1.0 * (kv - q)");
  EXPECT_EQ(reads_text("score * bias[h] + bias[h + 0] * 2.0"), "bias[h]: score + 2.0");
  EXPECT_EQ(reads_text("score + bias[q] + bias[kv]"), "bias[q]: 1.0; bias[kv]: 1.0");
  EXPECT_EQ(reads_text("scale * score"), "scale: score");
  EXPECT_EQ(reads_text("score + floor(scale) + select(bias[h] < 0, 1, 2) + document[b][q]"), "");
  const at::Tensor tensor = at::ones({3});
  const Expression same = Captured("x", tensor)[0] + Captured("x", tensor)[0];
  const Expression other = Captured("x", tensor)[0] + Captured("x", at::ones({3}))[0];
  EXPECT_EQ(captured_reads(same).size(), 1);
  EXPECT_EQ(captured_reads(other).size(), 2);
}

// The gradient of sum(score * weight) in the tensors, read by read.
std::map<const void*, at::Tensor> gradients(const Expression& score, const at::Tensor& x,
                                            const at::Tensor& weight) {
  std::map<const void*, at::Tensor> sums;
  for (const CapturedRead& one : captured_reads(score)) {
    const Node& read = one.read.node();
    const at::Tensor added = (values(one.derivative, x) * weight).detach();
    at::Tensor& sum =
        sums.try_emplace(read.tensor.unsafeGetTensorImpl(), at::zeros_like(read.tensor.detach()))
            .first->second;
    if (read.operands.empty()) {
      sum += added.sum();
      continue;
    }
    c10::List<std::optional<at::Tensor>> indices;
    for (const Expression& index : read.operands) indices.push_back(values(index, x));
    sum.index_put_(indices, added, /*accumulate=*/true);
  }
  return sums;
}

TEST(CapturedReads, GiveTheGradientsOfAutogradForRandomScores) {
  int64_t compared = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    std::mt19937_64 random(1000 + seed);
    RandomExpression make = {.random = random, .B = kB, .H = kH, .T = kT, .S = kS};
    for (const auto& [name, tensor] : random_tensors(random, kB, kH, kS, at::kDouble)) {
      make.tensors.emplace_back(name, tensor.clone().requires_grad_(tensor.is_floating_point()));
    }
    const Expression score = make.score(4);
    SCOPED_TRACE("seed " + std::to_string(1000 + seed) + ": " + to_text(score));
    const at::Tensor x = at::randn({kB, kH, kT, kS}, at::kDouble).requires_grad_(true);
    const at::Tensor weight = at::randn({kB, kH, kT, kS}, at::kDouble);
    const at::Tensor sum = (values(score, x) * weight).sum();
    if (sum.requires_grad()) sum.backward();
    auto found = gradients(score, x, weight);
    found[x.unsafeGetTensorImpl()] = (values(derivative(score), x) * weight).detach();
    auto leaves = make.tensors;
    leaves.emplace_back("score", x);
    for (const auto& [name, tensor] : leaves) {
      if (!tensor.is_floating_point()) continue;
      const auto ours = found.find(tensor.unsafeGetTensorImpl());
      const at::Tensor zero = at::zeros_like(tensor.detach());
      const at::Tensor expected = tensor.grad().defined() ? tensor.grad() : zero;
      const at::Tensor error = ((ours == found.end() ? zero : ours->second) - expected).abs();
      EXPECT_TRUE((error <= 1e-9 * (1 + expected.abs())).all().item<bool>()) << name;
      compared += ours != found.end();
    }
  }
  EXPECT_GT(compared, 400);
}

}  // namespace
}  // namespace nanoflex::flex
