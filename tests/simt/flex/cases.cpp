#include "tests/simt/flex/cases.h"

#include <random>

#include "attention/flex/masks.h"
#include "attention/flex/scores.h"
#include "tests/attention/random_expression.h"

namespace nanoflex::simt {
namespace {

using namespace flex;  // NOLINT: expressions

constexpr uint64_t kFirstSeed = 20261121;
constexpr int kRandomCases = 12;

/// All tensors that the cases read, by name.
std::map<std::string, at::Tensor> tensors_of(const FlexSizes& sizes, int variant) {
  std::mt19937_64 random(variant + 7);
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : random_tensors(random, sizes.B, sizes.H, sizes.S)) {
    tensors[name] = tensor;
  }
  tensors["alibi_slopes"] = alibi_slopes(sizes.H) * (variant + 1);
  return tensors;
}

void add_named(std::vector<FlexCase>& cases, std::map<std::string, at::Tensor> tensors,
               const FlexSizes& sizes, int variant) {
  const auto arguments = [&](const Named& named) {
    Arguments all = sample_arguments(named);
    for (at::Scalar& one : all) one = one.isFloatingPoint() ? one.toDouble() + variant : one;
    return all;
  };
  for (const Named& named : named_masks()) {
    cases.push_back(
        {.name = named.name, .mask = flex::bind(named.make(arguments(named)), tensors)});
  }
  for (const Named& named : named_scores()) {
    const Arguments given = arguments(named);
    if (named.name == "relative_bias") {
      tensors["relative_bias"] = at::randn({sizes.H, 2 * given[0].toLong() - 1});
    }
    cases.push_back({.name = named.name, .score = flex::bind(named.make(given), tensors)});
  }
}

void add_written(std::vector<FlexCase>& cases, const std::map<std::string, at::Tensor>& tensors,
                 int variant) {
  const Captured document("document", tensors.at("document")),
      padding("padding", tensors.at("padding")), bias("bias", tensors.at("bias")),
      temperature("temperature", tensors.at("temperature"));
  const int64_t middle = (tensors.at("bias").size(1) - 1) / 2;
  const double cap = 3.0 + variant;
  const auto in_document = [&](auto b, auto, auto q, auto kv) {
    return document[b][q] == document[b][kv];
  };
  cases.push_back({.name = "documents_bias_softcap",
                   .mask = trace_mask(in_document),
                   .score = trace_score([&](auto s, auto, auto h, auto q, auto kv) {
                     return cap * tanh((s + bias[h][q - kv + middle]) / cap);
                   })});
  cases.push_back({.name = "heads_and_padding",
                   .mask = trace_mask([&](auto b, auto h, auto q, auto kv) {
                     return (!padding[b][kv]) &
                            (((q - kv) % (h + (2 + variant)) == 0) | (kv / 16 == h));
                   })});
  const auto third = [&](auto, auto, auto q, auto kv) { return (q + kv) % 3 != variant; };
  // Minus infinity with an infinite derivative (or none), which is to be as good as a mask.
  cases.push_back({.name = "infinite_derivative",
                   .mask = trace_mask(third),
                   .score = trace_score([&](auto s, auto, auto, auto q, auto kv) {
                     return select((q + kv) % 2 == 0, s * temperature, log(s * 0.0) - 1.0);
                   })});
  cases.push_back(
      {.name = "finite_derivative",
       .mask = trace_mask(third) &
               trace_mask([](auto, auto, auto q, auto kv) { return (q + kv) % 2 == 0; }),
       .score = trace_score([&](auto s, auto, auto, auto, auto) { return s * temperature; })});
  cases.push_back(
      {.name = "few_keys", .mask = trace_mask([](auto, auto, auto, auto kv) { return kv < 70; })});
  cases.push_back(
      {.name = "integer_score", .score = trace_score([&](auto, auto b, auto h, auto q, auto kv) {
                                  return min(max((kv - q) / (2 + variant), -5), 5) + b - h;
                                })});
}

}  // namespace

std::vector<FlexCase> flex_cases(const FlexSizes& sizes, int variant) {
  std::vector<FlexCase> cases;
  const std::map<std::string, at::Tensor> tensors = tensors_of(sizes, variant);
  add_named(cases, tensors, sizes, variant);
  add_written(cases, tensors, variant);
  for (int i = 0; i < kRandomCases; ++i) {
    std::mt19937_64 random(kFirstSeed + i), values(variant);
    RandomExpression expression{random, sizes.B, sizes.H, sizes.T, sizes.S};
    expression.tensors = random_tensors(values, sizes.B, sizes.H, sizes.S);
    expression.wild = i % 3 == 2;
    const Expression mask = expression.mask(4);
    cases.push_back({.name = "random_" + std::to_string(kFirstSeed + i),
                     .mask = mask,
                     .score = expression.score(4)});
  }
  return cases;
}

}  // namespace nanoflex::simt
