#include "attention/flex/derivative.h"

#include <cmath>
#include <optional>
#include <stdexcept>
#include <unordered_map>
#include <unordered_set>

#include "attention/flex/simplify.h"

namespace nanoflex::flex {
namespace {

// d(expression)/d(variable), forward: each part's derivative from those of its operands. An
// undefined expression stands for 0, so that nothing is multiplied by it: 0 * inf would be NaN.
// Parts that the derivative shares with the expression are the same nodes.
class Differentiator {
 public:
  /// The variable is a node of the tree, in which equal parts are one node.
  explicit Differentiator(const Node& variable) : variable_(variable) {}

  Expression of(const Expression& expression) {
    const Node& node = expression.node();
    if (&node == &variable_) return 1.0;
    if (node.type != Type::kFloat || node.operands.empty() || node.op == Op::kLoad) return {};
    if (const auto found = done_.find(&node); found != done_.end()) return found->second;
    return done_[&node] = compute(expression);
  }

 private:
  Expression compute(const Expression& y) {
    const Node& node = y.node();
    if (node.op == Op::kSelect) {
      return choose(node.operands[0], of(node.operands[1]), of(node.operands[2]));
    }
    return node.operands.size() == 1 ? unary(y) : binary(y);
  }

  Expression unary(const Expression& y) {
    const Expression& x = y.node().operands[0];
    const Expression dx = of(x);
    if (!dx.defined()) return {};
    switch (y.node().op) {
      case Op::kNegate:
        return -dx;
      case Op::kAbs:
        return choose(x > 0.0, dx, choose(x < 0.0, -dx, {}));
      case Op::kExp:
        return product(dx, y);
      case Op::kLog:
        return quotient(dx, x);
      case Op::kSqrt:
        return product(dx, 0.5 / y);
      case Op::kTanh:
        return product(dx, 1.0 - y * y);
      case Op::kSigmoid:
        return product(dx, y * (1.0 - y));
      default:
        throw std::logic_error("derivative of '" + describe(y.node().op).text + "'");
    }
  }

  Expression binary(const Expression& y) {
    const Expression &a = y.node().operands[0], &b = y.node().operands[1];
    const Expression da = of(a), db = of(b);
    if (!da.defined() && !db.defined()) return {};
    switch (y.node().op) {
      case Op::kAdd:
        return sum(da, db);
      case Op::kSubtract:
        return difference(da, db);
      case Op::kMultiply:
        return sum(product(da, b), product(db, a));
      case Op::kDivide:
        return difference(quotient(da, b), product(db, y / b));
      case Op::kRemainder:  // a - b * floor(a / b), where the floor stands still
        return difference(da, product(db, (a - y) / b));
      case Op::kMin:
        return choose(a < b, da, choose(b < a, db, product(sum(da, db), 0.5)));
      case Op::kMax:
        return choose(a > b, da, choose(b > a, db, product(sum(da, db), 0.5)));
      default:
        throw std::logic_error("derivative of '" + describe(y.node().op).text + "'");
    }
  }

  static Expression choose(const Expression& condition, const Expression& yes,
                           const Expression& no) {
    if (!yes.defined() && !no.defined()) return {};
    return select(condition, yes.defined() ? yes : 0.0, no.defined() ? no : 0.0);
  }

  static Expression sum(const Expression& a, const Expression& b) {
    if (!a.defined() || !b.defined()) return a.defined() ? a : b;
    return a + b;
  }

  static Expression difference(const Expression& a, const Expression& b) {
    if (!b.defined()) return a;
    return a.defined() ? a - b : -b;
  }

  // Constant factors are kept in front and multiplied here: in softcap's derivative they cancel.
  static Expression product(const Expression& derivative, const Expression& factor) {
    if (!derivative.defined()) return {};
    if (const auto scale = number(factor)) return scaled(derivative, *scale);
    const bool one = number(derivative) == 1.0 && factor.type() == Type::kFloat;
    return one ? factor : derivative * factor;
  }

  static Expression quotient(const Expression& derivative, const Expression& divisor) {
    if (!derivative.defined()) return {};
    const auto a = number(derivative), b = number(divisor);
    if (a && b && !std::isnan(*a / *b)) return *a / *b;
    return derivative / divisor;
  }

  static Expression scaled(const Expression& derivative, double scale) {
    const Node& node = derivative.node();
    const bool product = node.op == Op::kMultiply;
    const auto constant = number(product ? node.operands[0] : derivative);
    if (!constant || std::isnan(*constant * scale)) return scale * derivative;
    return product ? *constant * scale * node.operands[1] : Expression(*constant * scale);
  }

  static std::optional<double> number(const Expression& e) {
    const Node& node = e.node();
    if (node.op != Op::kConstant || node.type == Type::kBool) return std::nullopt;
    return node.constant.toDouble();
  }

  const Node& variable_;
  std::unordered_map<const Node*, Expression> done_;
};

// Nodes of one operator, each once, in order of appearance.
void collect(const Expression& expression, Op op, std::unordered_set<const Node*>& seen,
             std::vector<Expression>& found) {
  const Node& node = expression.node();
  if (!seen.insert(&node).second) return;
  if (node.op == op) found.push_back(expression);
  for (const Expression& operand : node.operands) collect(operand, op, seen, found);
}

std::vector<Expression> collected(const Expression& expression, Op op) {
  std::unordered_set<const Node*> seen;
  std::vector<Expression> found;
  collect(expression, op, seen, found);
  return found;
}

}  // namespace

Expression derivative(const Expression& score) {
  const Expression simple = simplify(require_score(score));
  const std::vector<Expression> variable = collected(simple, Op::kScore);
  const Expression found =
      variable.empty() ? Expression() : Differentiator(variable[0].node()).of(simple);
  return simplify(found.defined() ? found : 0.0);
}

std::vector<CapturedRead> captured_reads(const Expression& score) {
  const Expression simple = simplify(require_score(score));
  std::vector<Expression> reads, derivatives;
  for (const Expression& read : collected(simple, Op::kLoad)) {
    if (read.type() != Type::kFloat) continue;
    const Expression found = Differentiator(read.node()).of(simple);
    if (!found.defined()) continue;
    reads.push_back(read);
    derivatives.push_back(found);
  }
  derivatives = simplify_together(derivatives);
  std::vector<CapturedRead> all;
  for (size_t i = 0; i < reads.size(); ++i) {
    const Node& node = derivatives[i].node();
    const bool zero = node.op == Op::kConstant && node.constant.toDouble() == 0;
    if (!zero) all.push_back({reads[i], derivatives[i]});
  }
  return all;
}

}  // namespace nanoflex::flex
