#include "attention/flex/simplify.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <unordered_set>

#include "attention/flex/evaluate.h"
#include "attention/flex/parse.h"
#include "tests/attention/random_expression.h"
#include "tests/attention/reference.h"

namespace nanoflex::flex {
namespace {

std::string simple(const std::string& text) {
  return to_text(simplify(parse_score(text, {{{"pad", Type::kBool}, {"bias", Type::kFloat}}})));
}

TEST(Simplify, FoldsConstantsAsEvaluateComputesThem) {
  EXPECT_EQ(simple("score + (2 + 3 * 4)"), "score + 14");
  EXPECT_EQ(simple("q + -7 / 2"), "q + -4");
  EXPECT_EQ(simple("q + -7 % 2"), "q + 1");
  EXPECT_EQ(simple("q + 7 / (1 - 1)"), "q");
  EXPECT_EQ(simple("score * exp(0)"), "score");
  EXPECT_EQ(simple("score + 1.0 / 0.0"), "score + inf");
  EXPECT_EQ(simple("score + 0.0 / 0.0"), "score + 0.0 / 0.0");  // NaN has no constant
  EXPECT_EQ(simple("q + floor(2.5) + floor(-1e30)"), "q + 2 + -16777216");
  EXPECT_EQ(simple("select(3 < 4 & !(2 == 2.0), q, kv)"), "kv");
  EXPECT_EQ(simple("select(0.5 + 0.25 == 0.75, q, kv)"), "q");
  // fp32 and fp64 differ.
  EXPECT_EQ(simple("select(16777217 == 16777216.0, q, kv)"),
            "select(16777217 == 16777216.0, q, kv)");
}

TEST(Simplify, DropsWhatChangesNothing) {
  EXPECT_EQ(simple("(q + 0) * 1 - 0"), "q");
  EXPECT_EQ(simple("0 - q"), "-q");
  EXPECT_EQ(simple("1.0 * (score / 1)"), "score");
  EXPECT_EQ(simple("-1 * (-score)"), "score");
  EXPECT_EQ(simple("q - -kv + -b"), "q + kv - b");
  EXPECT_EQ(simple("q * 0 + kv % 1 + (h - h)"), "0");
  EXPECT_EQ(simple("abs(-abs(score))"), "abs(score)");
  EXPECT_EQ(simple("min(score, score)"), "score");
  EXPECT_EQ(simple("select(q <= q & !!(q < kv), q, kv)"), "select(q < kv, q, kv)");
  EXPECT_EQ(simple("select(!(q < kv) | false, q, kv)"), "select(causal, q, kv)");
  EXPECT_EQ(simple("select(!pad[b][q], q, kv)"), "select(pad[b][q], kv, q)");
  EXPECT_EQ(simple("select(select(score < 1, true, false), 1, 2)"), "select(score < 1, 1, 2)");
}

TEST(Simplify, KeepsWhatCouldBeNanInfiniteNegativeZeroOrRefused) {
  for (const std::string text :
       {"score * 0.0", "score * 0", "score + 0.0", "score - score", "score / score", "q * 1.0",
        "select(score == score, 1, 0)", "select(!(score < 1) & causal, 1, 2)", "0.0 - score",
        "document[b][q] * 0", "select(document[b][q] == document[b][q], 1, 0)",
        "select(full, score, bias[h])", "-(score - 1.0)"}) {
    EXPECT_EQ(simple(text), text);
  }
}

int64_t count_nodes(const Expression& e, std::unordered_set<const Node*>& seen) {
  if (!seen.insert(&e.node()).second) return 0;
  int64_t count = 1;
  for (const Expression& operand : e.node().operands) count += count_nodes(operand, seen);
  return count;
}

int64_t distinct_nodes(const Expression& e) {
  std::unordered_set<const Node*> seen;
  return count_nodes(e, seen);
}

TEST(Simplify, SharesEqualPartsWithinAndAmongExpressions) {
  const Expression twice = parse_score("tanh(score / 30) * (1.0 - tanh(score / 30))");
  EXPECT_EQ(distinct_nodes(simplify(twice)), 7);  // score 30 / tanh 1.0 - *
  const auto both = simplify_together({twice, parse_score("tanh(score / 30)")});
  EXPECT_EQ(&both[0].node().operands[0].node(), &both[1].node());
  // Two tensors of one name are two; 0.0 and -0.0 are two.
  const Expression sum = Captured("x", at::zeros({})) + Captured("x", at::zeros({}));
  EXPECT_EQ(distinct_nodes(simplify(sum)), 3);
  EXPECT_EQ(simple("min(score / 0.0, score / -0.0)"), "min(score / 0.0, score / -0.0)");
}

TEST(Simplify, TakesTimeByNodesNotByPaths) {
  Expression shared = score_value();
  for (int i = 0; i < 15; ++i) shared = -shared * shared;
  EXPECT_EQ(distinct_nodes(simplify(shared)), 31);
}

// NaN is NaN, whatever its bits.
bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (!a.is_floating_point()) return a.equal(b);
  const at::Tensor x = a.contiguous(), y = b.contiguous();
  const at::Tensor same = x.view(at::kLong) == y.view(at::kLong);
  return same.logical_or(x.isnan().logical_and(y.isnan())).all().item<bool>();
}

TEST(Simplify, KeepsEveryBitOfRandomExpressionsAndNeverGrows) {
  const int64_t B = 2, H = 3, T = 4, S = 5;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    std::mt19937_64 random(seed);
    RandomExpression make = {
        .random = random, .B = B, .H = H, .T = T, .S = S, .wild = seed % 2 == 0};
    make.tensors = random_tensors(random, B, H, S, at::kDouble);
    const Expression before = seed % 3 == 0 ? make.mask(4) : make.score(4);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + to_text(before));
    const Expression after = simplify(before);
    EXPECT_EQ(after.type(), before.type());
    EXPECT_TRUE(after.node().size <= before.node().size);
    EXPECT_TRUE(equal(simplify(after), after));
    at::Tensor score = at::randn({B, H, T, S}, at::kDouble);
    score[0][0][0][0] = std::numeric_limits<double>::infinity();
    score[0][0][0][1] = std::numeric_limits<double>::quiet_NaN();
    score[0][0][0][2] = -0.0;
    const EvaluateOptions options = {.B = B, .H = H, .T = T, .S = S, .score = score};
    const at::Tensor x = evaluate(before, options).expand({B, H, T, S});
    const at::Tensor y = evaluate(after, options).expand({B, H, T, S});
    ASSERT_TRUE(same_bits(x, y)) << to_text(after);
  }
}

TEST(Evaluate, FloorStopsWhereAKernelsIntegersDo) {
  const auto floors = [](at::ScalarType dtype) {
    const double inf = std::numeric_limits<double>::infinity();
    const std::vector<double> scores = {-1.5, 2.5, 0, 3e4, -inf, inf, std::nan("")};
    const at::Tensor score = at::tensor(scores, at::kDouble).to(dtype);
    return evaluate(floor(score_value()), {.S = 7, .score = score.view({1, 1, 1, 7})});
  };
  const std::vector<int64_t> integers = {-2, 2, 0, 30000, -(1 << 24), 1 << 24, 0};
  const at::Tensor expected = at::tensor(integers, at::kLong).view({1, 1, 1, 7});
  EXPECT_TRUE(floors(at::kDouble).equal(expected));
  EXPECT_TRUE(floors(at::kFloat).equal(expected));
  EXPECT_TRUE(floors(at::kHalf).equal(expected));
  EXPECT_TRUE(equal(floor(query_index()), query_index()));
}

}  // namespace
}  // namespace nanoflex::flex
