#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>

#include "attention/flex/evaluate.h"
#include "attention/flex/masks.h"
#include "attention/flex/parse.h"
#include "attention/flex/scores.h"
#include "tests/attention/reference.h"

namespace nanoflex::flex {
namespace {

using PairRule = std::function<bool(int64_t q, int64_t kv)>;

void expect_rule(const Expression& mask, const PairRule& rule) {
  const int64_t T = 13, S = 20;
  const at::Tensor found = evaluate(mask, {.T = T, .S = S}).expand({1, 1, T, S});
  for (int64_t row = 0; row < T; ++row) {
    for (int64_t kv = 0; kv < S; ++kv) {
      ASSERT_EQ(found[0][0][row][kv].item<bool>(), rule(row + S - T, kv))
          << to_text(mask) << " at row " << row << ", kv " << kv;
    }
  }
}

TEST(NamedMasks, MeanWhatTheirNamesSay) {
  expect_rule(causal(), [](int64_t q, int64_t kv) { return kv <= q; });
  expect_rule(full(), [](int64_t, int64_t) { return true; });
  expect_rule(window(3), [](int64_t q, int64_t kv) { return kv >= q - 3; });
  expect_rule(prefix(9), [](int64_t q, int64_t kv) { return kv <= q || kv <= 8; });
  expect_rule(prefix(0), [](int64_t q, int64_t kv) { return kv <= q; });
  expect_rule(dilated(1), [](int64_t, int64_t) { return true; });
  expect_rule(dilated(4), [](int64_t q, int64_t kv) { return std::abs(q - kv) % 4 == 0; });
  expect_rule(block_sparse(4, 1, 3), [](int64_t q, int64_t kv) {
    return std::abs(q / 4 - kv / 4) <= 1 || (kv / 4) % 3 == 0;
  });
}

TEST(NamedMasks, RefuseArgumentsThatAreTooSmall) {
  EXPECT_EQ(refusal([] { window(-1); }),
            "[flex] window(n) needs an integer n of at least 0, is -1");
  EXPECT_EQ(refusal([] { dilated(0); }),
            "[flex] dilated(n) needs an integer n of at least 1, is 0");
  EXPECT_EQ(refusal([] { block_sparse(64, 1, 0); }),
            "[flex] block_sparse(n, local, every) needs an integer every of at least 1, is 0");
  EXPECT_EQ(refusal([] { softcap(0); }), "[flex] softcap(x) needs a number x above 0, is 0");
  EXPECT_NE(refusal([] { softcap(INFINITY); }), "");
  EXPECT_NE(refusal([] { relative_bias(0); }), "");
}

TEST(NamedScores, MeanWhatTheirNamesSay) {
  const int64_t H = 3, T = 4, S = 6;
  const at::Tensor score = at::randn({1, H, T, S}, at::kDouble) * 10;
  const EvaluateOptions options = {.H = H, .T = T, .S = S, .score = score};
  const at::Tensor slopes = at::randn({H}, at::kDouble), bias = at::randn({H, 5}, at::kDouble);
  const at::Tensor biased = evaluate(bind(alibi(), {{"alibi_slopes", slopes}}), options);
  const at::Tensor capped = evaluate(softcap(5), options);
  const at::Tensor relative = evaluate(bind(relative_bias(3), {{"relative_bias", bias}}), options);
  for (int64_t h = 0; h < H; ++h) {
    for (int64_t row = 0; row < T; ++row) {
      for (int64_t kv = 0; kv < S; ++kv) {
        const auto at = [&](const at::Tensor& x) { return x[0][h][row][kv].item<double>(); };
        const int64_t q = row + S - T, distance = std::clamp<int64_t>(q - kv, -2, 2);
        const double x = at(score);
        const auto expect_near = [&](double found, double expected) {
          EXPECT_TRUE(std::abs(found - expected) <= 1e-12) << h << " " << row << " " << kv;
        };
        expect_near(at(biased), x + slopes[h].item<double>() * static_cast<double>(kv - q));
        expect_near(at(capped), 5 * std::tanh(x / 5));
        expect_near(at(relative), x + bias[h][distance + 2].item<double>());
      }
    }
  }
}

// The published slopes: a geometric series for 8 heads; for 12 its first 8 and then those of 16.
TEST(NamedScores, AlibiSlopesAreThoseOfThePaper) {
  const at::Tensor eight = alibi_slopes(8), twelve = alibi_slopes(12);
  for (int64_t i = 0; i < 8; ++i) {
    EXPECT_EQ(eight[i].item<float>(), std::exp2(-static_cast<float>(i + 1)));
    EXPECT_EQ(twelve[i].item<float>(), eight[i].item<float>());
  }
  for (int64_t i = 0; i < 4; ++i) {
    const double expected = std::exp2(-0.5 - static_cast<double>(i));
    EXPECT_TRUE(std::abs(twelve[8 + i].item<double>() - expected) <= 1e-7);
  }
  EXPECT_EQ(alibi_slopes(1).item<float>(), 1.0F / 256);
  EXPECT_EQ(refusal([] { alibi_slopes(0); }), "[score] alibi_slopes needs at least 1 head, is 0");
}

// A new row is tested the day it is written: by name, through text and back.
TEST(NamedTables, EveryRowIsMadeByItsNameAndWrittenAsIt) {
  for (const bool scores : {false, true}) {
    for (const Named& named : scores ? named_scores() : named_masks()) {
      const Expression made = named.make(sample_arguments(named));
      const std::string text = to_text(made);
      EXPECT_EQ(text.substr(0, text.find('(')), named.name);
      EXPECT_TRUE(equal(scores ? parse_score(text) : parse_mask(text), made)) << text;
    }
  }
}

TEST(NamedTables, KnowTheirTensors) {
  const std::map<std::string, Type> expected = {
      {"alibi_slopes", Type::kFloat}, {"document", Type::kInt}, {"relative_bias", Type::kFloat}};
  EXPECT_EQ(standard_tensors(), expected);
}

}  // namespace
}  // namespace nanoflex::flex
