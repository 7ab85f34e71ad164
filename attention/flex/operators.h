#pragma once

#include <string>
#include <vector>

namespace nanoflex::flex {

enum class Type { kBool, kInt, kFloat };

/// "truth value", "integer" or "float": for messages.
std::string type_name(Type type);

enum class Op {
  // leaves
  kBatch,
  kHead,
  kQuery,
  kKey,
  kScore,
  kConstant,
  kLoad,  // a captured tensor; its operands are the indices
  // one operand
  kNegate,
  kNot,
  kAbs,
  kFloor,
  kExp,
  kLog,
  kSqrt,
  kTanh,
  kSigmoid,
  // two operands
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kRemainder,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kAnd,
  kOr,
  kMin,
  kMax,
  // three
  kSelect,
};

/// What an operator takes and gives.
enum class Rule {
  kLeaf,
  kArithmetic,  // numbers to integer when all are integers, else to float
  kReal,        // a number to float
  kInteger,     // a number to integer
  kCompare,     // numbers to a truth value
  kLogic,       // truth values to a truth value
  kSelect,      // a truth value and two values of one kind
};

/// How tightly an operator binds when written as text; functions and leaves bind tightest.
constexpr int kOrBinds = 1, kAndBinds = 2, kComparisonBinds = 3, kSumBinds = 4, kProductBinds = 5,
              kUnaryBinds = 6, kTightest = 7;

struct Operator {
  Op op;
  std::string text;  ///< its symbol, or its name where it is a leaf or written as a function
  int operands;
  int binds;  ///< one of the precedences above
  Rule rule;
};

/// The one table of operators, in the order of Op.
const std::vector<Operator>& operators();
const Operator& describe(Op op);

}  // namespace nanoflex::flex
