#pragma once

#include <ATen/Functions.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "attention/flex/operators.h"

namespace nanoflex::flex {

struct Node;

/// A value over one (query, key) pair: an immutable tree over the indices b, h, q, kv, the scaled
/// score, constants and captured tensors. Copies share the tree.
///
/// Operators build trees, and throw std::invalid_argument where operands have the wrong type:
/// `& | !` take truth values; comparisons and arithmetic take numbers. Integers divide to the floor
/// and their remainder has the divisor's sign; by zero both give 0. An integer beside a float
/// becomes a float.
class Expression {
 public:
  Expression() = default;  ///< undefined
  template <typename Number>
  requires std::is_arithmetic_v<Number> Expression(Number value)
      : Expression(constant(value)) {}  // NOLINT: constants mix freely
  explicit Expression(Node node);

  /// There is no conversion to bool: `if (q >= kv)` and `&&` inside a traced lambda must not
  /// compile.
  bool defined() const { return node_ != nullptr; }
  /// Throws std::invalid_argument when undefined.
  const Node& node() const;
  Type type() const;
  /// Tells, for as long as it is kept, this very tree from any other.
  std::weak_ptr<const Node> identity() const { return node_; }

  /// A captured tensor with one index more: document[b][q]. Throws on anything else.
  Expression operator[](const Expression& index) const;

 private:
  template <typename Number>
  static Expression constant(Number value) {
    if constexpr (std::is_same_v<Number, bool>) {
      return from_scalar(at::Scalar(value));
    } else if constexpr (std::is_integral_v<Number>) {
      return from_scalar(at::Scalar(static_cast<int64_t>(value)));
    } else {
      return from_scalar(at::Scalar(static_cast<double>(value)));
    }
  }
  static Expression from_scalar(const at::Scalar& value);

  std::shared_ptr<const Node> node_;
};

/// One operator and its operands. `depth` and `size` count the tree below and are filled on
/// construction; both are bounded, so that walking a tree recursively is safe.
struct Node {
  Op op;
  Type type;
  std::vector<Expression> operands = {};
  at::Scalar constant = 0;  ///< of kConstant
  std::string name = {};    ///< of kLoad
  at::Tensor tensor = {};   ///< of kLoad; undefined until bound
  int64_t depth = 1, size = 1;
};

constexpr int64_t kMaxDepth = 1000, kMaxSize = 100'000;

/// floor() of a float is an integer between -2^24 and 2^24, at which larger values and infinities
/// stop, and 0 for NaN: integers that fused kernels can hold. An integer is its own floor.
constexpr int64_t kLargestFloor = int64_t{1} << 24;

/// A tensor that an expression reads, to be indexed once for each of its dimensions.
/// Gradients flow into a float tensor that requires them.
class Captured : public Expression {
 public:
  /// Filled later by bind(); `type` is what its elements are.
  Captured(const std::string& name, Type type);
  Captured(const std::string& name, const at::Tensor& tensor);
};

Expression batch_index();
Expression head_index();
Expression query_index();  ///< the query's position among the keys: row + S - T
Expression key_index();
Expression score_value();  ///< the scaled score, for score expressions only

/// Applies an operator; throws std::invalid_argument when an operand has the wrong type.
Expression apply(Op op, const std::vector<Expression>& operands);

// clang-format off
inline Expression operator-(const Expression& a) { return apply(Op::kNegate, {a}); }
inline Expression operator!(const Expression& a) { return apply(Op::kNot, {a}); }
inline Expression operator+(const Expression& a, const Expression& b) { return apply(Op::kAdd, {a, b}); }
inline Expression operator-(const Expression& a, const Expression& b) { return apply(Op::kSubtract, {a, b}); }
inline Expression operator*(const Expression& a, const Expression& b) { return apply(Op::kMultiply, {a, b}); }
inline Expression operator/(const Expression& a, const Expression& b) { return apply(Op::kDivide, {a, b}); }
inline Expression operator%(const Expression& a, const Expression& b) { return apply(Op::kRemainder, {a, b}); }
inline Expression operator==(const Expression& a, const Expression& b) { return apply(Op::kEqual, {a, b}); }
inline Expression operator!=(const Expression& a, const Expression& b) { return apply(Op::kNotEqual, {a, b}); }
inline Expression operator<(const Expression& a, const Expression& b) { return apply(Op::kLess, {a, b}); }
inline Expression operator<=(const Expression& a, const Expression& b) { return apply(Op::kLessEqual, {a, b}); }
inline Expression operator>(const Expression& a, const Expression& b) { return apply(Op::kGreater, {a, b}); }
inline Expression operator>=(const Expression& a, const Expression& b) { return apply(Op::kGreaterEqual, {a, b}); }
inline Expression operator&(const Expression& a, const Expression& b) { return apply(Op::kAnd, {a, b}); }
inline Expression operator|(const Expression& a, const Expression& b) { return apply(Op::kOr, {a, b}); }
inline Expression min(const Expression& a, const Expression& b) { return apply(Op::kMin, {a, b}); }
inline Expression max(const Expression& a, const Expression& b) { return apply(Op::kMax, {a, b}); }
inline Expression abs(const Expression& a) { return apply(Op::kAbs, {a}); }
inline Expression floor(const Expression& a) { return apply(Op::kFloor, {a}); }  ///< see kLargestFloor
inline Expression exp(const Expression& a) { return apply(Op::kExp, {a}); }
inline Expression log(const Expression& a) { return apply(Op::kLog, {a}); }
inline Expression sqrt(const Expression& a) { return apply(Op::kSqrt, {a}); }
inline Expression tanh(const Expression& a) { return apply(Op::kTanh, {a}); }
inline Expression sigmoid(const Expression& a) { return apply(Op::kSigmoid, {a}); }
/// `yes` where `condition` holds, else `no`.
inline Expression select(const Expression& condition, const Expression& yes, const Expression& no) {
  return apply(Op::kSelect, {condition, yes, no});
}
// clang-format on

/// Returns `mask` if it is a truth value that does not read the score, else throws
/// std::invalid_argument saying what it is.
Expression require_mask(const Expression& mask);
/// Returns `score` if it is a number, else throws std::invalid_argument.
Expression require_score(const Expression& score);

/// Which pairs may attend, from `[](auto b, auto h, auto q, auto kv) { return q >= kv; }`. The
/// lambda runs once, on symbols.
template <typename Function>
Expression trace_mask(const Function& function) {
  return require_mask(function(batch_index(), head_index(), query_index(), key_index()));
}

/// How a scaled score changes, from `[](auto score, auto b, auto h, auto q, auto kv) { ... }`.
template <typename Function>
Expression trace_score(const Function& function) {
  return require_score(
      function(score_value(), batch_index(), head_index(), query_index(), key_index()));
}

/// The same expression with the named captured tensors filled (or replaced); names that it does not
/// read are ignored. Throws std::invalid_argument when a tensor's type or dimensions do not fit.
Expression bind(const Expression& expression, const std::map<std::string, at::Tensor>& tensors);

/// What became of each node of an expression.
using Replaced = std::unordered_map<const Node*, Expression>;

/// The same expression, where each load has the tensor that `tensor_of` gives it; parts in which
/// nothing changes are shared. Adds to `done`, which also holds what is known beforehand.
Expression with_tensors(const Expression& expression,
                        const std::function<at::Tensor(const Node& load)>& tensor_of,
                        Replaced& done);

/// Calls `visit` with each node once, operands before what uses them.
void for_each_node(const Expression& expression,
                   const std::function<void(const Expression&)>& visit);
/// Whether the expression has a node of this operator.
bool has_operator(const Expression& expression, Op op);

/// Names of captured tensors that are still unbound, each once, in order of appearance.
std::vector<std::string> free_tensors(const Expression& expression);

/// The captured tensors that it reads, each once.
std::vector<at::Tensor> tensors_of(const Expression& expression);
/// Those of them whose changes LibTorch counts: not those made for inference.
std::vector<at::Tensor> watched_tensors_of(const Expression& expression);

/// Whether two expressions are the same tree, over the same captured tensors (by identity).
bool equal(const Expression& a, const Expression& b);
/// The same, but not looking at what the captured tensors' names are bound to.
bool same_form(const Expression& a, const Expression& b);

/// Readable text with as few parentheses as its structure needs: `causal & document`,
/// `score + slopes[h] * (kv - q)`. Named masks are shown by name, so masks made of them can be
/// parsed.
std::string to_text(const Expression& expression);

}  // namespace nanoflex::flex
