#include "attention/flex/operators.h"

namespace nanoflex::flex {

std::string type_name(Type type) {
  switch (type) {
    case Type::kBool:
      return "truth value";
    case Type::kInt:
      return "integer";
    default:
      return "float";
  }
}

const std::vector<Operator>& operators() {
  static const std::vector<Operator> table = {
      {Op::kBatch, "b", 0, kTightest, Rule::kLeaf},
      {Op::kHead, "h", 0, kTightest, Rule::kLeaf},
      {Op::kQuery, "q", 0, kTightest, Rule::kLeaf},
      {Op::kKey, "kv", 0, kTightest, Rule::kLeaf},
      {Op::kScore, "score", 0, kTightest, Rule::kLeaf},
      {Op::kConstant, "constant", 0, kTightest, Rule::kLeaf},
      {Op::kLoad, "load", 0, kTightest, Rule::kLeaf},
      {Op::kNegate, "-", 1, kUnaryBinds, Rule::kArithmetic},
      {Op::kNot, "!", 1, kUnaryBinds, Rule::kLogic},
      {Op::kAbs, "abs", 1, kTightest, Rule::kArithmetic},
      {Op::kFloor, "floor", 1, kTightest, Rule::kInteger},
      {Op::kExp, "exp", 1, kTightest, Rule::kReal},
      {Op::kLog, "log", 1, kTightest, Rule::kReal},
      {Op::kSqrt, "sqrt", 1, kTightest, Rule::kReal},
      {Op::kTanh, "tanh", 1, kTightest, Rule::kReal},
      {Op::kSigmoid, "sigmoid", 1, kTightest, Rule::kReal},
      {Op::kAdd, "+", 2, kSumBinds, Rule::kArithmetic},
      {Op::kSubtract, "-", 2, kSumBinds, Rule::kArithmetic},
      {Op::kMultiply, "*", 2, kProductBinds, Rule::kArithmetic},
      {Op::kDivide, "/", 2, kProductBinds, Rule::kArithmetic},
      {Op::kRemainder, "%", 2, kProductBinds, Rule::kArithmetic},
      {Op::kEqual, "==", 2, kComparisonBinds, Rule::kCompare},
      {Op::kNotEqual, "!=", 2, kComparisonBinds, Rule::kCompare},
      {Op::kLess, "<", 2, kComparisonBinds, Rule::kCompare},
      {Op::kLessEqual, "<=", 2, kComparisonBinds, Rule::kCompare},
      {Op::kGreater, ">", 2, kComparisonBinds, Rule::kCompare},
      {Op::kGreaterEqual, ">=", 2, kComparisonBinds, Rule::kCompare},
      {Op::kAnd, "&", 2, kAndBinds, Rule::kLogic},
      {Op::kOr, "|", 2, kOrBinds, Rule::kLogic},
      {Op::kMin, "min", 2, kTightest, Rule::kArithmetic},
      {Op::kMax, "max", 2, kTightest, Rule::kArithmetic},
      {Op::kSelect, "select", 3, kTightest, Rule::kSelect},
  };
  return table;
}

const Operator& describe(Op op) { return operators()[static_cast<size_t>(op)]; }

}  // namespace nanoflex::flex
