#include "attention/flex/bounds.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>

#include "attention/flex/evaluate.h"
#include "attention/flex/masks.h"
#include "tests/attention/mask_generator.h"
#include "tests/attention/reference.h"

namespace nanoflex::flex {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

const Box kBelowDiagonal = {.q_low = 128, .q_high = 255, .kv_low = 0, .kv_high = 127};

Bounds over(const Expression& expression, const Box& box) { return Bounder(expression).over(box); }

void expect_bounds(const Expression& expression, const Box& box, double low, double high) {
  const Bounds bounds = over(expression, box);
  EXPECT_EQ(bounds.low, low) << to_text(expression);
  EXPECT_EQ(bounds.high, high) << to_text(expression);
}

TEST(Bounds, WhatMasksAreMadeOfIsBoundedExactly) {
  const Expression q = query_index(), kv = key_index();
  expect_bounds(q - kv, kBelowDiagonal, 1, 255);
  expect_bounds(q >= kv, kBelowDiagonal, 1, 1);
  expect_bounds(q < kv, kBelowDiagonal, 0, 0);
  expect_bounds(q - kv <= 255, kBelowDiagonal, 1, 1);
  expect_bounds(q - kv <= 254, kBelowDiagonal, 0, 1);
  expect_bounds(q - kv <= 0, kBelowDiagonal, 0, 0);
  expect_bounds((q - kv) % 256, kBelowDiagonal, 1, 255);
  expect_bounds((q - kv) % 100, kBelowDiagonal, 0, 99);
  expect_bounds((kv - q) % 300, kBelowDiagonal, 45, 299);
  expect_bounds((q - kv) % -256, kBelowDiagonal, -255, -1);
  expect_bounds((kv - q) / 2, kBelowDiagonal, -128, -1);
  expect_bounds(q / 128 == kv / 128, kBelowDiagonal, 0, 0);
  expect_bounds(q / 256 == kv / 256, kBelowDiagonal, 1, 1);
  expect_bounds(q / kv, kBelowDiagonal, 0, 255);
  expect_bounds(select(q >= kv, q * kv, -1), kBelowDiagonal, 0, 255 * 127);
  expect_bounds(abs(kv - 100) + q * 0.5, kBelowDiagonal, 64, 227.5);
}

TEST(Bounds, IntegersThatMayOverflowAreAnyAndFloorSaturates) {
  const Expression q = query_index();
  const double most = std::ldexp(1, 62);
  const Expression large = q * (int64_t{1} << 57);
  expect_bounds(large, kBelowDiagonal, -most, most);
  expect_bounds(abs(large), kBelowDiagonal, -most, most);
  // Past 2^53 a double rounds: outwards.
  const int64_t odd = (int64_t{1} << 53) + 1;
  expect_bounds(key_index() * 0 + odd, kBelowDiagonal, std::ldexp(1, 53), std::ldexp(1, 53) + 2);
  expect_bounds(floor(exp(q * 1.0)), kBelowDiagonal, 1 << 24, 1 << 24);
  expect_bounds(floor(-exp(q * 1.0)), kBelowDiagonal, -(1 << 24), -(1 << 24));
  expect_bounds(floor(log(-1.0 - q)), kBelowDiagonal, 0, 0);
  expect_bounds(floor(sqrt(200.0 - q)), kBelowDiagonal, 0, 8);
}

TEST(Bounds, SayWhereNanAndInfinityMayCome) {
  const Expression q = query_index(), score = score_value();
  const auto may_be_nan = [](const Expression& e) { return over(e, kBelowDiagonal).may_be_nan; };
  EXPECT_TRUE(may_be_nan(score));
  EXPECT_TRUE(may_be_nan(score * 0.0));
  EXPECT_FALSE(may_be_nan(q * 0.5));
  EXPECT_FALSE(may_be_nan(q / 0.5));
  EXPECT_TRUE(may_be_nan((q - 200) / (q - 200.0)));
  EXPECT_FALSE(may_be_nan(1.0 / (q - 200.0)));
  EXPECT_TRUE(may_be_nan(log(q - 200.0)));
  EXPECT_FALSE(may_be_nan(log(q - 128.0)));
  EXPECT_TRUE(may_be_nan(sqrt(q - 200.0)));
  EXPECT_TRUE(may_be_nan(exp(q * 1.0) - exp(q * 1.0)));
  EXPECT_FALSE(may_be_nan(tanh(exp(q * 1.0))));
  EXPECT_FALSE(may_be_nan(floor(log(q - 200.0))));
  EXPECT_FALSE(may_be_nan(select(q >= 0, q * 0.5, score)));
  EXPECT_EQ(over(log(q - 128.0), kBelowDiagonal).low, -kInfinity);
  expect_bounds(log(-1.0 - q) == log(-1.0 - q), kBelowDiagonal, 0, 0);
  expect_bounds(log(-1.0 - q) != 1.0, kBelowDiagonal, 1, 1);
}

TEST(Bounds, OfAPartAreThoseInTheLastBox) {
  const Expression difference = query_index() - key_index(), mask = difference <= 5;
  const Bounder bounder(mask);
  for (const int64_t shift : {0, 10}) {
    bounder.over({.q_low = 7 + shift, .q_high = 9 + shift, .kv_low = 2, .kv_high = 3});
    EXPECT_EQ(bounder.of(difference).low, 4 + shift);
    EXPECT_EQ(bounder.of(difference).high, 7 + shift);
    EXPECT_EQ(bounder.of(mask).low, 0);
  }
}

TEST(Bounds, SayWhetherAReadMayLieOutside) {
  const Captured table("table", at::arange(10));
  const auto may_fail = [&](const Expression& index, int64_t high) {
    return over(table[index] + 1, {.kv_high = high}).may_fail;
  };
  EXPECT_FALSE(may_fail(key_index(), 9));
  EXPECT_TRUE(may_fail(key_index(), 10));
  EXPECT_TRUE(may_fail(key_index() - 1, 9));
  EXPECT_FALSE(may_fail(key_index() % 10, 100));
  expect_bounds(table[key_index() - 3], {.kv_high = 5}, 0, 2);
  EXPECT_EQ(refusal([] { Bounder{document()}; }),
            "[expression] tensor 'document' is not bound; bind() it before use");
}

// A read of a whole tensor by b, h, q and kv, over random parts of it.
TEST(Bounds, FindTheLeastAndGreatestElementOfAnyPartOfAnyTensor) {
  std::mt19937_64 random(3);
  const auto pick = [&](int64_t n) { return static_cast<int64_t>(random() % n); };
  const std::vector<Expression> indices = {batch_index(), head_index(), query_index(), key_index()};
  for (int trial = 0; trial < 300; ++trial) {
    const at::ScalarType type =
        std::vector{at::kLong,   at::kInt,  at::kBool,     at::kFloat,
                    at::kDouble, at::kByte, at::kBFloat16, at::kShort}[trial % 8];
    const int64_t dims = trial % 5;
    std::vector<int64_t> shape;
    for (int64_t i = 0; i < dims; ++i) shape.push_back(1 + pick(dims < 3 ? 90 : 12));
    at::Tensor values =
        at::randint(0, 200, shape, at::make_generator<at::CPUGeneratorImpl>(trial), at::kLong);
    if (type == at::kBool) values = values > 100;
    values = values.to(type);
    if (dims > 1 && pick(2) == 0) values = values.transpose(0, dims - 1);
    if (dims > 0 && pick(2) == 0) values = values.slice(dims - 1, 0, values.size(dims - 1), 2);
    const bool with_nan = values.is_floating_point() && values.numel() > 0 && pick(2) == 0;
    if (with_nan) values.masked_fill_(values == values.flatten()[0], std::nan(""));

    const Captured captured("values", values);
    Expression read = captured;
    for (int64_t i = 0; i < dims; ++i) read = read[indices[i]];
    const Bounder bounder(read);
    for (int part = 0; part < 10; ++part) {
      at::Tensor slice = values;
      int64_t low[4] = {}, high[4] = {};
      for (int64_t i = 0; i < dims; ++i) {
        low[i] = pick(values.size(i));
        high[i] = low[i] + (pick(3) == 0 ? 0 : pick(values.size(i) - low[i]));
        slice = slice.slice(i, low[i], high[i] + 1);
      }
      const Bounds bounds =
          bounder.over({low[0], high[0], low[1], high[1], low[2], high[2], low[3], high[3]});
      const at::Tensor numbers = slice.to(at::kDouble).flatten();
      const at::Tensor finite = numbers.masked_select(numbers == numbers);
      SCOPED_TRACE(c10::str("trial ", trial, " part ", part, " ", type, " ", values.sizes()));
      ASSERT_EQ(bounds.may_be_nan, finite.numel() < numbers.numel());
      ASSERT_FALSE(bounds.may_fail);
      if (finite.numel() == 0) continue;
      ASSERT_EQ(bounds.low, finite.min().item<double>());
      ASSERT_EQ(bounds.high, finite.max().item<double>());
    }
  }
}

// Every value of a random expression lies in its bounds, over random boxes, in fp32 and fp64.
TEST(Bounds, ContainEveryValueOfRandomExpressions) {
  const int64_t B = 2, H = 2, T = 24, S = 19;
  for (uint64_t seed = 0; seed < 600; ++seed) {
    MaskGenerator generator(seed);
    const Expression expression = seed % 3 == 0   ? generator.truth(4)
                                  : seed % 3 == 1 ? generator.integer(4)
                                                  : generator.real(4);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + to_text(expression));
    const Bounder any(expression), single(expression, Floats::kSingle);
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
      const at::Tensor values =
          evaluate(expression, {.B = B, .H = H, .T = T, .S = S, .score = at::zeros({1}, dtype)})
              .to(at::kDouble)
              .expand({B, H, T, S});
      for (int part = 0; part < 8; ++part) {
        const int64_t b = generator.pick(B), h = generator.pick(H);
        const int64_t row = generator.pick(T), key = generator.pick(S);
        const int64_t rows = 1 + (part < 2 ? 0 : generator.pick(T - row));
        const int64_t keys = 1 + (part < 2 ? 0 : generator.pick(S - key));
        const at::Tensor inside = values.slice(0, b, b + 1)
                                      .slice(1, h, h + 1)
                                      .slice(2, row, row + rows)
                                      .slice(3, key, key + keys)
                                      .flatten();
        const at::Tensor numbers = inside.masked_select(inside == inside);
        const Box box = {b, b, h, h, row + S - T, row + rows - 1 + S - T, key, key + keys - 1};
        for (const Bounder* bounder : {&any, &single}) {
          if (bounder == &single && dtype == at::kDouble) continue;
          const Bounds bounds = bounder->over(box);
          EXPECT_FALSE(bounds.may_fail);
          EXPECT_TRUE(bounds.may_be_nan || numbers.numel() == inside.numel());
          if (numbers.numel() == 0) continue;
          // Integers past 2^62 saturate.
          const double least = std::max(numbers.min().item<double>(),
                                        expression.type() == Type::kInt ? -0x1p62 : -kInfinity);
          const double most = std::min(numbers.max().item<double>(),
                                       expression.type() == Type::kInt ? 0x1p62 : kInfinity);
          ASSERT_TRUE(bounds.low <= least) << bounds.low << " above " << least;
          ASSERT_TRUE(bounds.high >= most) << bounds.high << " below " << most;
        }
      }
    }
  }
}

}  // namespace
}  // namespace nanoflex::flex
