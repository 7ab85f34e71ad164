#include "tests/simt/reference.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <random>

#include "attention/philox.h"

namespace nanoflex::simt {

std::string Problem::name() const {
  const auto edge = [](int x) { return x == cuda::kUnbounded ? "all" : std::to_string(x); };
  return "B" + std::to_string(B) + " H" + std::to_string(H) + "/" + std::to_string(H_kv) + " T" +
         std::to_string(T) + " S" + std::to_string(S) + " D" + std::to_string(D) + " left " +
         edge(left) + " right " + edge(right) + (dropout > 0 ? " dropout" : "") +
         (time_first ? " [B,T,H,D]" : "") + " seed " + std::to_string(seed);
}

namespace {

Problem random_problem(uint64_t seed) {
  std::mt19937_64 generator(seed);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(generator);
  };
  const auto edge = [&] { return draw(0, 2) == 0 ? cuda::kUnbounded : draw(-20, 60); };
  const int H_kv = draw(1, 2);
  return {.B = draw(1, 2),
          .H = H_kv * draw(1, 3),
          .H_kv = H_kv,
          .T = draw(1, 70),
          .S = draw(1, 150),
          .left = edge(),
          .right = draw(0, 1) == 0 ? 0 : edge(),
          .time_first = draw(0, 1) == 0,
          .seed = seed};
}

}  // namespace

std::vector<Problem> random_problems() {
  const char* asked = std::getenv("NANOFLEX_SHAPES");
  const int count = asked ? std::stoi(asked) : 25;
  std::vector<Problem> problems;
  for (int i = 0; i < count; ++i) problems.push_back(random_problem(100 + i));
  return problems;
}

Inputs random_inputs(const Problem& p, const Rounding& round) {
  std::mt19937_64 generator(p.seed);
  std::normal_distribution<double> normal;
  const auto draw = [&](size_t size, double magnitude) {
    Numbers x(size);
    for (double& value : x) value = round(normal(generator) * magnitude);
    return x;
  };
  return {draw(p.queries(), p.magnitude), draw(p.keys(), 1), draw(p.keys(), 1),
          draw(p.queries(), 1), draw(size_t(p.B) * p.H * p.T, 1)};
}

namespace {

/// Does dropout keep this weight?
bool kept(const Problem& p, int b, int h, int i, int j) {
  return dropout_words(p.seed, b * p.H + h, i, j & ~3).word[j & 3] >= dropout_threshold(p.dropout);
}

}  // namespace

Results plain_attention(const Problem& p, const Inputs& x, const Rounding& rounding) {
  const bool exact = !rounding;
  const auto round = [&](double value) { return exact ? value : rounding(value); };
  // Products are summed in fp32 unless exact.
  const auto add = [&](double& sum, double value) {
    sum = exact ? sum + value : static_cast<double>(static_cast<float>(sum + value));
  };
  const auto dot = [&](const double* a, const double* b) {
    double sum = 0;
    for (int d = 0; d < p.D; ++d) add(sum, a[d] * b[d]);
    return sum;
  };
  const size_t rows = size_t(p.B) * p.H * p.T;
  Results y = {Numbers(p.queries()), Numbers(rows), Numbers(p.queries()), Numbers(p.keys()),
               Numbers(p.keys())};
  const double keep_scale = 1 / (1 - p.dropout), infinity = std::numeric_limits<double>::infinity();
  Numbers scaled(p.S), s(p.S), weight(p.S), d_weight(p.S), dropped(p.S);
  for (int b = 0; b < p.B; ++b) {
    for (int h = 0; h < p.H; ++h) {
      for (int i = 0; i < p.T; ++i) {
        const size_t row = p.query_row(b, h, i);
        const double *q = &x.q[row * p.D], *d_o = &x.d_o[row * p.D];
        double maximum = -infinity, total = 0;
        for (int j = 0; j < p.S; ++j) {
          scaled[j] = round(round(dot(q, &x.k[p.key_row(b, h, j) * p.D])) * p.scale());
          s[j] = p.score ? round(p.score(scaled[j], i + p.S - p.T, j)) : scaled[j];
          if (!p.sees(i, j)) s[j] = -infinity;
          maximum = std::max(maximum, s[j]);
        }
        for (int j = 0; j < p.S; ++j) {
          weight[j] = s[j] == -infinity ? 0 : std::exp(s[j] - maximum);
          add(total, weight[j]);
        }
        y.lse[row] = maximum + std::log(total);
        if (total == 0) continue;
        double correction = -x.d_lse[row];
        for (int j = 0; j < p.S; ++j) {
          const double* v = &x.v[p.key_row(b, h, j) * p.D];
          const bool keep = p.dropout == 0 || kept(p, b, h, i, j);
          weight[j] = round(weight[j] / total);
          dropped[j] = keep ? round(weight[j] * keep_scale) : 0;
          d_weight[j] = keep ? round(round(dot(d_o, v)) * keep_scale) : 0;
          for (int d = 0; d < p.D; ++d) add(y.o[row * p.D + d], dropped[j] * v[d]);
          add(correction, weight[j] * d_weight[j]);
        }
        for (int j = 0; j < p.S; ++j) {
          const size_t key = p.key_row(b, h, j) * p.D;
          const double slope = p.derivative ? p.derivative(scaled[j], i + p.S - p.T, j) : 1;
          const double d_s =
              round(round(weight[j] * (d_weight[j] - correction)) * slope * p.scale());
          double size = 0;  // of the sums that d_s is a difference of
          for (int d = 0; d < p.D; ++d) size += std::abs(d_o[d] * x.v[key + d]) * p.scale();
          size = std::max(size, std::abs(correction) * p.scale());
          for (int d = 0; d < p.D; ++d) {
            y.dq_term = std::max(y.dq_term, size * std::abs(x.k[key + d]));
            y.dk_term = std::max(y.dk_term, size * std::abs(q[d]));
            y.dv_term = std::max(y.dv_term, std::abs(d_o[d]));
            add(y.dq[row * p.D + d], d_s * x.k[key + d]);
            add(y.dk[key + d], d_s * q[d]);
            add(y.dv[key + d], dropped[j] * d_o[d]);
          }
        }
      }
    }
  }
  for (Numbers* result : {&y.o, &y.dq, &y.dk, &y.dv}) {
    for (double& value : *result) value = round(value);
  }
  return y;
}

double largest_error(const Numbers& a, const Numbers& truth) {
  double largest = 0;
  for (size_t i = 0; i < truth.size(); ++i) {
    if (a[i] == truth[i]) continue;
    const double error = std::abs(a[i] - truth[i]);
    if (!(error <= largest)) largest = error;
    if (std::isnan(largest)) break;
  }
  return largest;
}

double ulp(const Numbers& x, double epsilon) {
  double largest = 0;
  for (double value : x) {
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  }
  return largest > 0 ? std::exp2(std::floor(std::log2(largest))) * epsilon : 0;
}

}  // namespace nanoflex::simt
