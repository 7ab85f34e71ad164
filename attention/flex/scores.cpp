#include "attention/flex/scores.h"

#include <bit>
#include <cmath>
#include <stdexcept>

namespace nanoflex::flex {
namespace {

// The i-th of the slopes of `heads` heads, a power of two.
double slope(int64_t i, int64_t heads) {
  return std::exp2(-8.0 * static_cast<double>(i + 1) / static_cast<double>(heads));
}

}  // namespace

Expression alibi() {
  const Captured slopes("alibi_slopes", Type::kFloat);
  return trace_score(
      [&](auto score, auto, auto h, auto q, auto kv) { return score + slopes[h] * (kv - q); });
}

Expression softcap(double x) {
  check_arguments(named_scores(), "softcap", {x});
  return trace_score([x](auto score, auto, auto, auto, auto) { return x * tanh(score / x); });
}

Expression relative_bias(int64_t n) {
  check_arguments(named_scores(), "relative_bias", {n});
  const Captured bias("relative_bias", Type::kFloat);
  const Expression reach = n;  // an expression, so that n - 1 is written as n - 1
  return trace_score([&](auto score, auto, auto h, auto q, auto kv) {
    return score + bias[h][min(max(q - kv, 1 - reach), reach - 1) + reach - 1];
  });
}

at::Tensor alibi_slopes(int64_t heads) {
  if (heads < 1) {
    throw std::invalid_argument("[score] alibi_slopes needs at least 1 head, is " +
                                std::to_string(heads));
  }
  const auto below = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(heads)));
  const at::Tensor slopes = at::empty({heads}, at::kFloat);
  auto* const values = slopes.mutable_data_ptr<float>();
  for (int64_t i = 0; i < heads; ++i) {
    values[i] = static_cast<float>(i < below ? slope(i, below) : slope(2 * (i - below), 2 * below));
  }
  return slopes;
}

const std::vector<Named>& named_scores() {
  using A = Arguments;
  static const std::vector<Named> table = {
      {"alibi", {}, [](const A&) { return alibi(); }},
      {"softcap",
       {{.name = "x", .type = Type::kFloat, .above = true}},
       [](const A& a) { return softcap(a.at(0).toDouble()); }},
      {"relative_bias",
       {{.name = "n", .least = 1}},
       [](const A& a) { return relative_bias(a.at(0).toLong()); }},
  };
  return table;
}

std::vector<std::string> score_names() { return signatures(named_scores()); }

}  // namespace nanoflex::flex
