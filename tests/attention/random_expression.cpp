#include "tests/attention/random_expression.h"

#include <limits>

#include "attention/flex/masks.h"

namespace nanoflex::flex {
namespace {

bool is_zero(const Expression& e) {
  return e.node().op == Op::kConstant && e.node().constant.toDouble() == 0;
}

Type type_of(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kBool) return Type::kBool;
  return tensor.is_floating_point() ? Type::kFloat : Type::kInt;
}

}  // namespace

NamedTensors random_tensors(std::mt19937_64& random, int64_t B, int64_t H, int64_t S,
                            at::ScalarType dtype) {
  at::Tensor document = at::zeros({B, S}, at::kInt), table = at::zeros({7}, at::kLong),
             padding = at::zeros({B, S}, at::kBool);
  for (int64_t b = 0; b < B; ++b) {
    int number = 0;
    for (int64_t s = 0; s < S; ++s) {
      number += random() % 5 == 0;
      document[b][s] = number;
      padding[b][s] = random() % 6 == 0;
    }
  }
  for (int64_t i = 0; i < 7; ++i) table[i] = static_cast<int64_t>(random() % 11) - 5;
  const auto floats = [&](at::IntArrayRef sizes) {
    at::Tensor values = at::zeros(sizes, at::kDouble);
    std::uniform_real_distribution<double> between(-1.5, 1.5);
    double* const data = values.mutable_data_ptr<double>();
    for (int64_t i = 0; i < values.numel(); ++i) data[i] = between(random);
    return values.to(dtype);
  };
  return {{"document", document},
          {"table", table},
          {"padding", padding},
          {"slopes", floats({H})},
          {"bias", floats({H, 2 * S - 1})},
          {"temperature", floats({})}};
}

Vocabulary vocabulary_of(const NamedTensors& tensors) {
  Vocabulary vocabulary;
  for (const auto& [name, tensor] : tensors) vocabulary.tensors[name] = type_of(tensor);
  return vocabulary;
}

Expression RandomExpression::comparison(const Expression& a, const Expression& b) {
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

Expression RandomExpression::truth(int depth, bool with_score) {
  if (depth == 0) {
    const std::vector<Expression> leaves = {causal(),
                                            window(pick(S + 1)),
                                            prefix(pick(S + 1)),
                                            dilated(1 + pick(4)),
                                            Expression(true),
                                            causal(),
                                            Expression(false),
                                            block_sparse(1 + pick(4), pick(2), 1 + pick(3))};
    return leaves[pick(static_cast<int64_t>(leaves.size()))];
  }
  const auto part = [&] { return truth(pick(depth), with_score); };
  switch (pick(12)) {
    case 0:
    case 1:
      return truth(depth - 1, with_score) & part();
    case 2:
    case 3:
      return part() | truth(depth - 1, with_score);
    case 4:
      return !truth(depth - 1, with_score);
    case 5:
      return select(part(), part(), truth(depth - 1, with_score));
    case 6:
    case 7: {
      const Expression number_below = number(depth - 1, with_score);
      return comparison(number_below, number(pick(depth), with_score));
    }
    case 8: {
      const Expression value = load(Type::kBool, depth - 1, with_score);
      return value.defined() ? value : part();
    }
    default: {
      const Expression integer_below = integer(depth - 1, with_score);
      return comparison(integer_below, integer(pick(depth), with_score));
    }
  }
}

Expression RandomExpression::integer_leaf() {
  const std::vector<Expression> leaves = {batch_index(), head_index(), query_index(), query_index(),
                                          key_index(),   key_index(),  pick(13) - 6,  pick(40)};
  return leaves[pick(static_cast<int64_t>(leaves.size()))];
}

Expression RandomExpression::integer(int depth, bool with_score) {
  if (depth == 0) return integer_leaf();
  const Expression a = integer(depth - 1, with_score), b = integer(pick(depth), with_score);
  const Expression divisor = is_zero(b) ? Expression(3) : b;
  switch (pick(13)) {
    case 0:
      return a + b;
    case 1:
      return a - b;
    case 2:
      return a % (1 + pick(50)) * (b % (1 + pick(20)));
    case 3:
      return a * (pick(5) - 2);
    case 4:
      return a / divisor;
    case 5:
      return a % divisor;
    case 6:
      return min(a, b);
    case 7:
      return max(b, a);
    case 8:
      return -a;
    case 9:
      return abs(a);
    case 10:
      return select(truth(pick(depth), with_score), a, b);
    case 11:
      return min(max(floor(number(depth - 1, with_score)), -1000), 1000);
    default: {
      const Expression value = load(Type::kInt, depth - 1, with_score);
      return value.defined() ? value : a;
    }
  }
}

Expression RandomExpression::number_leaf(bool with_score) {
  if (with_score && pick(2) == 0) return score_value();
  if (wild && pick(4) == 0) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    const double values[] = {0.0, -0.0, kInfinity, -kInfinity, 1.0, -1.0, 1e300};
    return values[pick(std::ssize(values))];
  }
  const Expression value = pick(3) == 0 ? load(Type::kFloat, 0, with_score) : Expression();
  if (value.defined()) return value;
  const double constants[] = {0.5, -1.25, 3.0, 1e-5, 0.1};
  return pick(2) == 0 ? Expression(constants[pick(std::ssize(constants))]) : integer_leaf() * 0.125;
}

Expression RandomExpression::real_function(const Expression& x) {
  switch (pick(5)) {
    case 0:
      return wild ? exp(x) : exp(min(x, 1.5));
    case 1:
      return wild ? log(x) : log(abs(x) + 0.5);
    case 2:
      return wild ? sqrt(x) : sqrt(abs(x) + 0.1);
    case 3:
      return tanh(x);
    default:
      return sigmoid(x);
  }
}

Expression RandomExpression::quotient(const Expression& a, const Expression& b) {
  return wild ? a / b : a / (1 + abs(b));
}

Expression RandomExpression::remainder(const Expression& a, const Expression& b) {
  return wild ? a % b : a % (0.5 + abs(b));
}

Expression RandomExpression::number(int depth, bool with_score) {
  if (depth == 0) return number_leaf(with_score);
  const Expression a = number(depth - 1, with_score), b = number(pick(depth), with_score);
  switch (pick(15)) {
    case 0:
      return a + b;
    case 1:
      return b - a;
    case 2:
      return wild ? a * b : a * tanh(b);
    case 3:
      return a * sigmoid(a);  // a part that stands twice
    case 4:
      return quotient(a, b);
    case 5:
      return remainder(a, b);
    case 6:
      return min(a, b);
    case 7:
      return max(a, b);
    case 8:
      return -a;
    case 9:
      return abs(a);
    case 10:
      return select(truth(pick(depth), with_score), a, b);
    case 11:
      return integer(depth - 1, with_score) % 5 * a;
    case 12: {
      const Expression value = load(Type::kFloat, depth - 1, with_score);
      return value.defined() ? a * value : a;
    }
    default:
      return real_function(a);
  }
}

Expression RandomExpression::index_below(int64_t size, int depth, bool with_score) {
  std::vector<Expression> plain;
  if (size >= B) plain.push_back(batch_index());
  if (size >= H) plain.push_back(head_index());
  if (size >= S) plain.push_back(key_index());
  if (size >= S && T <= S) plain.push_back(query_index());
  if (size >= 2 * S - 1 && T <= S) plain.push_back(query_index() - key_index() + (S - 1));
  if (!plain.empty() && pick(2) == 0) return plain[pick(static_cast<int64_t>(plain.size()))];
  const Expression index = integer(depth, with_score);
  return pick(2) == 0 ? index % size : min(max(index, 0), size - 1);
}

Expression RandomExpression::load(Type type, int depth, bool with_score) {
  NamedTensors fitting;
  for (const auto& [name, tensor] : tensors) {
    if (type_of(tensor) == type) fitting.emplace_back(name, tensor);
  }
  if (fitting.empty()) return {};
  const auto& [name, tensor] = fitting[pick(static_cast<int64_t>(fitting.size()))];
  Expression value = Captured(name, tensor);
  for (const int64_t size : tensor.sizes()) value = value[index_below(size, depth, with_score)];
  return value;
}

}  // namespace nanoflex::flex
