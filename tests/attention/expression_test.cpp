#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "attention/flex/evaluate.h"
#include "attention/flex/masks.h"
#include "tests/attention/reference.h"

namespace nanoflex::flex {
namespace {

struct Point {
  int64_t b, h, q, kv;
};

// A random expression beside what it means on plain numbers. Integers wrap around, as tensors do.
struct Integer {
  Expression tree;
  std::function<int64_t(const Point&)> value;
};
struct Truth {
  Expression tree;
  std::function<bool(const Point&)> value;
};

int64_t wrapped(uint64_t x) { return static_cast<int64_t>(x); }

int64_t floor_quotient(int64_t a, int64_t b) {
  if (b == 0) return 0;
  if (b == -1) return wrapped(0 - static_cast<uint64_t>(a));
  return a / b - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0);
}

int64_t floor_remainder(int64_t a, int64_t b) {
  if (b == 0 || b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {
    table_ = at::randint(-5, 6, {4, 7}, at::kLong);
  }

  Integer integer(int depth) {
    if (depth == 0) return leaf();
    const Integer a = integer(depth - 1), b = integer(depth - 1);
    const auto f = a.value, g = b.value;
    const auto unsigned_of = [](const auto& function, const Point& p) {
      return static_cast<uint64_t>(function(p));
    };
    switch (pick(10)) {
      case 0:
        return {a.tree + b.tree,
                [=](auto& p) { return wrapped(unsigned_of(f, p) + unsigned_of(g, p)); }};
      case 1:
        return {a.tree - b.tree,
                [=](auto& p) { return wrapped(unsigned_of(f, p) - unsigned_of(g, p)); }};
      case 2:
        return {a.tree * b.tree,
                [=](auto& p) { return wrapped(unsigned_of(f, p) * unsigned_of(g, p)); }};
      case 3:
        return {a.tree / nonzero(b.tree),
                [=, c = nonzero_value(b)](auto& p) { return floor_quotient(f(p), c(p)); }};
      case 4:
        return {a.tree % nonzero(b.tree),
                [=, c = nonzero_value(b)](auto& p) { return floor_remainder(f(p), c(p)); }};
      case 5:
        return {min(a.tree, b.tree), [=](auto& p) { return std::min(f(p), g(p)); }};
      case 6:
        return {max(a.tree, b.tree), [=](auto& p) { return std::max(f(p), g(p)); }};
      case 7:
        return {-a.tree, [=](auto& p) { return wrapped(0 - unsigned_of(f, p)); }};
      case 8: {
        const Truth c = truth(depth - 1);
        return {select(c.tree, a.tree, b.tree),
                [=, when = c.value](auto& p) { return when(p) ? f(p) : g(p); }};
      }
      default: {
        const Captured table("table", table_);
        const at::Tensor values = table_;
        return {table[a.tree % 4][abs(b.tree % 7)], [=](auto& p) {
                  return values[floor_remainder(f(p), 4)][std::abs(floor_remainder(g(p), 7))]
                      .template item<int64_t>();
                }};
      }
    }
  }

  Truth truth(int depth) {
    if (depth > 0 && pick(2) == 0) {
      const Truth a = truth(depth - 1), b = truth(depth - 1);
      const auto f = a.value, g = b.value;
      switch (pick(3)) {
        case 0:
          return {a.tree & b.tree, [=](auto& p) { return f(p) && g(p); }};
        case 1:
          return {a.tree | b.tree, [=](auto& p) { return f(p) || g(p); }};
        default:
          return {!a.tree, [=](auto& p) { return !f(p); }};
      }
    }
    const Integer a = integer(std::max(0, depth - 1)), b = integer(std::max(0, depth - 1));
    const auto f = a.value, g = b.value;
    switch (pick(6)) {
      case 0:
        return {a.tree == b.tree, [=](auto& p) { return f(p) == g(p); }};
      case 1:
        return {a.tree != b.tree, [=](auto& p) { return f(p) != g(p); }};
      case 2:
        return {a.tree < b.tree, [=](auto& p) { return f(p) < g(p); }};
      case 3:
        return {a.tree <= b.tree, [=](auto& p) { return f(p) <= g(p); }};
      case 4:
        return {a.tree > b.tree, [=](auto& p) { return f(p) > g(p); }};
      default:
        return {a.tree >= b.tree, [=](auto& p) { return f(p) >= g(p); }};
    }
  }

 private:
  int64_t pick(int64_t choices) { return static_cast<int64_t>(random_() % choices); }

  // A constant zero as divisor is refused; one that only turns out to be zero gives 0.
  static bool is_zero(const Expression& tree) { return equal(tree, Expression(0)); }
  static Expression nonzero(const Expression& tree) { return is_zero(tree) ? Expression(3) : tree; }
  static std::function<int64_t(const Point&)> nonzero_value(const Integer& x) {
    if (is_zero(x.tree)) return [](auto&) { return int64_t{3}; };
    return x.value;
  }

  Integer leaf() {
    const int64_t constant = pick(13) - 6;
    switch (pick(5)) {
      case 0:
        return {batch_index(), [](auto& p) { return p.b; }};
      case 1:
        return {head_index(), [](auto& p) { return p.h; }};
      case 2:
        return {query_index(), [](auto& p) { return p.q; }};
      case 3:
        return {key_index(), [](auto& p) { return p.kv; }};
      default:
        return {Expression(constant), [=](auto&) { return constant; }};
    }
  }

  std::mt19937_64 random_;
  at::Tensor table_;
};

TEST(Evaluate, AgreesWithPlainNumbersOnRandomExpressions) {
  at::manual_seed(7);
  for (uint64_t seed = 0; seed < 150; ++seed) {
    Generator generator(seed);
    const Truth random = generator.truth(4);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + to_text(random.tree));
    const int64_t B = 2, H = 2, T = 4, S = 3;
    const at::Tensor values =
        evaluate(random.tree, {.B = B, .H = H, .T = T, .S = S}).expand({B, H, T, S}).contiguous();
    const auto value = values.accessor<bool, 4>();
    for (int64_t i = 0; i < B * H * T * S; ++i) {
      const int64_t b = i / (H * T * S), h = i / (T * S) % H, row = i / S % T, kv = i % S;
      ASSERT_EQ(value[b][h][row][kv], random.value({b, h, row + S - T, kv}))
          << "b " << b << " h " << h << " row " << row << " kv " << kv;
    }
  }
}

TEST(Evaluate, ATileIsASliceOfTheWhole) {
  at::manual_seed(8);
  for (uint64_t seed = 0; seed < 30; ++seed) {
    const Expression mask = Generator(seed).truth(3).tree;
    EvaluateOptions options = {.B = 2, .H = 2, .T = 9, .S = 12};
    const at::Tensor whole = evaluate(mask, options).expand({2, 2, 9, 12});
    options.rows = Range{2, 7};
    options.columns = Range{5, 11};
    const at::Tensor tile = evaluate(mask, options).expand({2, 2, 5, 6});
    EXPECT_TRUE(tile.equal(whole.slice(2, 2, 7).slice(3, 5, 11))) << to_text(mask);
  }
}

// Traced and run on plain doubles by the same text.
template <typename Score, typename Index>
auto every_function(Score score, Index q, Index kv) {
  using std::abs, std::exp, std::floor, std::log, std::max, std::min, std::sqrt, std::tanh;
  return tanh(score) * exp(min(score, 1.5 * score)) +
         log(abs(score) + 1.0) / sqrt(2.0 + abs(q - kv)) -
         max(score, floor(score / 0.3) + 0.5 * kv);
}

TEST(Evaluate, FloatFunctionsMeanWhatTheyMeanInC) {
  const at::Tensor score = at::randn({1, 1, 5, 6}, at::kDouble);
  const Expression traced = trace_score([](auto score, auto, auto, auto q, auto kv) {
    return every_function(score, q, kv) + sigmoid(score);
  });
  const at::Tensor found = evaluate(traced, {.T = 5, .S = 6, .score = score});
  for (int64_t row = 0; row < 5; ++row) {
    for (int64_t kv = 0; kv < 6; ++kv) {
      const double x = score[0][0][row][kv].item<double>();
      const double expected =
          every_function<double, double>(x, row + 1.0, static_cast<double>(kv)) +
          1 / (1 + std::exp(-x));
      EXPECT_TRUE(std::abs(found[0][0][row][kv].item<double>() - expected) <= 1e-12);
    }
  }
}

TEST(Evaluate, DividesIntegersToTheFloorAndFloatsTruly) {
  const auto value = [](const Expression& e) { return evaluate(e, {}).item<double>(); };
  EXPECT_EQ(value(key_index() - 7 / Expression(2)), -3);
  EXPECT_EQ(value((key_index() - 7) / 2), -4);
  EXPECT_EQ(value((key_index() - 7) % 2), 1);
  EXPECT_EQ(value((key_index() - 7) / 2.0), -3.5);
  EXPECT_EQ(value((key_index() + 7) / key_index()), 0);
  EXPECT_EQ(value((key_index() + 7) % key_index()), 0);
  EXPECT_EQ(value((key_index() + std::numeric_limits<int64_t>::min()) / (key_index() - 1)),
            static_cast<double>(std::numeric_limits<int64_t>::min()));
}

// For which the host would wait for a GPU, and which a recorded step cannot do; here there are
// none.
TEST(Evaluate, LooksAtNoValuesOfAnIndexThatIsSurelyWithin) {
  const auto meta = at::TensorOptions(at::kMeta);
  const Captured bias("bias", at::empty({4, 39}, meta));
  const Expression score =
      trace_score([&](auto s, auto, auto h, auto q, auto kv) { return s + bias[h][q - kv + 19]; });
  const at::Tensor scores = at::empty({1, 4, 10, 20}, meta);
  EXPECT_NO_THROW(
      evaluate(score, {.H = 4, .T = 10, .S = 20, .device = at::kMeta, .score = scores}));
}

TEST(Evaluate, NamesTheTensorThatCannotBeRead) {
  const EvaluateOptions options = {.B = 2, .H = 3, .T = 4, .S = 6};
  const auto refused = [&](const Expression& e) { return refusal([&] { evaluate(e, options); }); };
  const Captured slopes("slopes", at::ones({2})), table("table", at::ones({4, 4}));
  EXPECT_EQ(refused(document()),
            "[expression] tensor 'document' is not bound; bind() it before use");
  EXPECT_EQ(refused(slopes[head_index()]),
            "[expression] tensor 'slopes' [2] is read at 2 in dimension 0 (index 'h'); use 0 to 1");
  EXPECT_EQ(
      refused(slopes[query_index() - 3]),
      "[expression] tensor 'slopes' [2] is read at -1 in dimension 0 (index 'q - 3'); use 0 to 1");
  EXPECT_EQ(refused(score_value()), "[expression] there is no score to read here");
  EXPECT_EQ(refused(table[head_index()]),
            "[expression] tensor 'table' [4, 4] is indexed by 1 values");
}

TEST(Expression, RefusesWrongTypesWhereTheyAreMade) {
  const Expression q = query_index(), kv = key_index();
  EXPECT_EQ(refusal([&] { q&(q >= kv); }),
            "[expression] '&' needs truth values, but 'q' is a integer");
  EXPECT_EQ(refusal([&] { !kv; }), "[expression] '!' needs truth values, but 'kv' is a integer");
  EXPECT_EQ(refusal([&] { causal() + 1; }),
            "[expression] '+' needs numbers, but 'causal' is a truth value");
  EXPECT_EQ(refusal([&] { return (q >= kv) == (kv >= q); }),
            "[expression] '==' needs numbers, but 'causal' is a truth value");
  EXPECT_EQ(refusal([&] { select(q, 1, 2); }),
            "[expression] 'select' needs a truth value first, but 'q' is a integer");
  EXPECT_EQ(refusal([&] { select(q >= kv, q >= kv, 2); }),
            "[expression] 'select' needs two values of one kind, but '2' is a integer");
  EXPECT_EQ(refusal([&] { q[kv]; }), "[expression] only a captured tensor has [], not 'q'");
  EXPECT_EQ(refusal([&] { Captured("x", Type::kInt)[score_value()]; }),
            "[expression] tensor 'x' needs integer indices, 'score' is a float");
  EXPECT_EQ(refusal([&] { q / 0; }), "[expression] 'q' is divided by zero");
  EXPECT_EQ(refusal([&] { Expression(std::nan("")); }), "[expression] a constant is NaN");
  EXPECT_EQ(refusal([&] { Expression() + 1; }), "[expression] an undefined expression was used");
  EXPECT_EQ(refusal([&] { Captured("x", at::ones({2}))[q][kv]; }),
            "[expression] tensor 'x' has only 1 dimensions, index 'kv' is one too many");
  EXPECT_EQ(refusal([&] {
              Captured("x", at::ones({2, 2}))[q] + 1;
            }),
            "[expression] tensor 'x' has 2 dimensions, but is indexed by 1");
}

TEST(Expression, BindFillsNamedTensorsAndChecksThem) {
  const Expression mask = causal() & document();
  EXPECT_EQ(free_tensors(mask), std::vector<std::string>{"document"});
  const Expression bound = bind(mask, {{"document", at::zeros({1, 4}, at::kInt)}, {"other", {}}});
  EXPECT_TRUE(free_tensors(bound).empty());
  EXPECT_FALSE(free_tensors(mask).empty());
  EXPECT_FALSE(equal(mask, bound));
  EXPECT_TRUE(same_form(mask, bound));
  EXPECT_EQ(refusal([&] {
              bind(mask, {{"document", at::zeros({1, 4})}});
            }),
            "[expression] tensor 'document' must hold elements of type integer, holds float");
  EXPECT_EQ(refusal([&] {
              bind(mask, {{"document", at::zeros({4}, at::kLong)}});
            }),
            "[expression] tensor 'document' is indexed by 2 values, has 1 dimensions");
}

TEST(Expression, EqualityIsThatOfTheTree) {
  EXPECT_TRUE(equal(causal(), query_index() >= key_index()));
  EXPECT_FALSE(equal(causal(), key_index() <= query_index()));
  EXPECT_FALSE(equal(window(3), window(4)));
  EXPECT_FALSE(equal(Expression(1), Expression(1.0)));
  EXPECT_TRUE(equal(Expression(), Expression()));
  EXPECT_FALSE(equal(Expression(), causal()));
}

TEST(Expression, IsWrittenWithAsFewParenthesesAsItsStructureNeeds) {
  const Expression q = query_index(), kv = key_index(), h = head_index(), score = score_value();
  const Captured slopes("slopes", Type::kFloat);
  EXPECT_EQ(to_text(score + slopes[h] * (kv - q)), "score + slopes[h] * (kv - q)");
  EXPECT_EQ(to_text(30 * tanh(score / 30)), "30 * tanh(score / 30)");
  EXPECT_EQ(to_text(q - (kv - 1) - 2), "q - (kv - 1) - 2");
  EXPECT_EQ(to_text(-(q + 1) * -kv), "-(q + 1) * -kv");
  EXPECT_EQ(to_text((!((q < kv) & (q > 3))) | (kv < 4)), "!(q < kv & q > 3) | kv < 4");
  EXPECT_EQ(to_text(select(q >= kv, score * 0.5, -1.0)), "select(causal, score * 0.5, -1.0)");
  EXPECT_EQ(to_text(causal() & (window(8) | !document())), "causal & (window(8) | !document)");
}

TEST(Expression, SizeIsBoundedSoThatTreesCannotExhaustTheStack) {
  Expression deep = query_index();
  EXPECT_NE(refusal([&] {
              for (int i = 0; i < 100'000; ++i) deep = deep + 1;
            }).find("the expression is too large"),
            std::string::npos);
  EXPECT_EQ(evaluate(deep, {}).item<int64_t>(), kMaxDepth - 1);
  EXPECT_FALSE(to_text(deep).empty());
  Expression wide = query_index();
  EXPECT_NE(refusal([&] {
              for (int i = 0; i < 100; ++i) wide = wide * wide;
            }).find("the expression is too large"),
            std::string::npos);
}

}  // namespace
}  // namespace nanoflex::flex
