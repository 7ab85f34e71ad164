#include "tests/attention/mask_generator.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>

#include <cmath>

namespace nanoflex::flex {
namespace {

at::Tensor random_integers(uint64_t seed, at::IntArrayRef shape, at::ScalarType type) {
  return at::randint(-5, 6, shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::kLong)
      .to(type);
}

at::Tensor random_weights(uint64_t seed, at::ScalarType type) {
  const at::Tensor weights = random_integers(seed, {6}, at::kDouble) * 0.3;
  weights[seed % 6] = std::nan("");
  if (seed % 3 == 0) weights[(seed + 1) % 6] = std::numeric_limits<double>::infinity();
  return weights.to(type);
}

// NaN and what is too large for an integer out of the way.
Expression tame(const Expression& x) { return min(max(select(x == x, x, 0.0), -1000.0), 1000.0); }

}  // namespace

MaskGenerator::MaskGenerator(uint64_t seed)
    : random_(seed),
      table_("table", random_integers(seed, {7, 4}, at::kLong).t()),
      small_("small", random_integers(seed + 1, {10}, at::kInt).slice(0, 0, 10, 2)),
      single_("single", random_integers(seed + 2, {}, at::kShort)),
      weights_("weights", random_weights(seed, at::kFloat)),
      wide_("wide", random_weights(seed + 1, at::kDouble)),
      visible_("visible", random_integers(seed, {3, 5}, at::kLong) > 0) {}

Expression MaskGenerator::truth(int depth) {
  if (depth == 0) return usual_mask();
  switch (pick(9)) {
    case 0:
    case 1:
      return truth(depth - 1) & truth(depth - 1);
    case 2:
      return truth(depth - 1) | truth(depth - 1);
    case 3:
      return !truth(depth - 1);
    case 4:
      return select(truth(depth - 1), truth(depth - 1), truth(depth - 1));
    case 5:
      return visible_[integer(depth - 1) % 3][integer(depth - 1) % 5];
    default:
      break;
  }
  const bool of_reals = pick(2) == 0;
  const Expression a = of_reals ? real(depth - 1) : integer(depth - 1);
  const Expression b = pick(3) == 0 ? real(depth - 1) : integer(depth - 1);
  switch (pick(6)) {
    case 0:
      return a == b;
    case 1:
      return a != b;
    case 2:
      return a < b;
    case 3:
      return a <= b;
    case 4:
      return a > b;
    default:
      return a >= b;
  }
}

Expression MaskGenerator::usual_mask() {
  const Expression q = query_index(), kv = key_index();
  const int64_t n = pick(40) + 1;
  switch (pick(7)) {
    case 0:
      return q >= kv;
    case 1:
      return q - kv <= n;
    case 2:
      return (q - kv) % n == 0;
    case 3:
      return q / n == kv / n;
    case 4:
      return table_[0][q / n % 7] == table_[batch_index() % 4][kv / n % 7];
    case 5:
      return kv < n;
    default:
      return (kv + head_index() * 3) % n < 5;
  }
}

// A constant zero as divisor is refused; one that only turns out to be zero gives 0.
Expression MaskGenerator::divisor(int depth) {
  const Expression divisor = integer(depth);
  return divisor.node().op == Op::kConstant && divisor.node().constant.toLong() == 0
             ? Expression(-3)
             : divisor;
}

Expression MaskGenerator::integer(int depth) {
  if (depth == 0) return integer_leaf();
  const Expression a = integer(depth - 1);
  switch (pick(12)) {
    case 0:
      return a + integer(depth - 1);
    case 1:
      return a - integer(depth - 1);
    case 2:
      return a * integer(depth - 1);
    case 3:
      return a / divisor(depth - 1);
    case 4:
      return a % divisor(depth - 1);
    case 5:
      return min(a, integer(depth - 1));
    case 6:
      return max(a, integer(depth - 1));
    case 7:
      return -a;
    case 8:
      return abs(a);
    case 9:
      return select(truth(depth - 1), a, integer(depth - 1));
    case 10:
      return floor(tame(real(depth - 1)));
    default:
      return captured_integer(depth - 1);
  }
}

Expression MaskGenerator::captured_integer(int depth) {
  if (pick(2) == 0) return table_[integer(depth) % 4][integer(depth) % 7];
  return small_[integer(depth) % 5];
}

Expression MaskGenerator::real(int depth) {
  if (depth == 0) return real_leaf();
  const Expression a = real(depth - 1);
  const Expression b = pick(2) == 0 ? real(depth - 1) : integer(depth - 1);
  switch (pick(15)) {
    case 0:
      return a + b;
    case 1:
      return a - b;
    case 2:
      return a * b;
    case 3:
      return a / b;
    case 4:
      return a % b;
    case 5:
      return min(a, b);
    case 6:
      return max(b, a);
    case 7:
      return -a;
    case 8:
      return abs(a);
    case 9:
      return exp(a);
    case 10:
      return log(a);
    case 11:
      return sqrt(b);
    case 12:
      return pick(2) == 0 ? tanh(a) : sigmoid(a);
    default:
      return select(truth(depth - 1), a, b);
  }
}

Expression MaskGenerator::integer_leaf() {
  switch (pick(7)) {
    case 0:
      return batch_index();
    case 1:
      return head_index();
    case 2:
    case 3:
      return pick(2) == 0 ? query_index() : query_index() - key_index();
    case 4:
      return key_index();
    case 5:
      return pick(4) == 0 ? static_cast<const Expression&>(single_) : Expression(pick(1000));
    default:
      return {pick(13) - 6};
  }
}

Expression MaskGenerator::real_leaf() {
  switch (pick(6)) {
    case 0:
      return query_index() * 0.5;
    case 1:
      return key_index() / 3.0;
    case 2:
      return weights_[query_index() % 6];
    case 3:
      return wide_[key_index() % 6];
    default:
      return {static_cast<double>(pick(9) - 4) * 0.1};
  }
}

}  // namespace nanoflex::flex
