#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "attention/flex/bounds.h"
#include "attention/flex/range_table.h"

namespace nanoflex::flex {

/// An expression as a list of steps, operands before what uses them, equal parts once; run over
/// boxes of index values, and over what changed since the last box only.
class IntervalProgram {
 public:
  /// Throws std::invalid_argument for an unbound tensor, and one with too few indices.
  IntervalProgram(const Expression& expression, Floats floats);

  /// The expression's value over the box.
  const ValueRange& run(const Box& box);

  /// Of a part, after run(). REQUIRES: the node is in the expression.
  const ValueRange& value(const Node& node) const { return values_[step_of_.at(&node)]; }

 private:
  struct Step {
    Op op = Op::kConstant;
    Type type = Type::kBool;
    int count = 0;                   ///< of operands, for what is computed
    bool real = false;               ///< operands are taken as floats
    uint8_t outcomes_that_hold = 0;  ///< of a comparison
    uint8_t depends = 0;             ///< a bit for each of b, h, q, kv
    std::array<int, 3> operands = {};
    std::vector<int> indices = {};  ///< of a captured tensor
    const RangeTable* table = nullptr;
    at::IntArrayRef sizes = {};
  };
  // What makes two nodes the same step.
  using Key = std::tuple<Op, Type, std::vector<int>, int64_t, double, const void*>;

  int compile(const Expression& expression);
  int compile_node(const Node& node);
  const RangeTable* table_of(const Node& node);

  void compute(const Step& step, ValueRange& value, const Box& box);
  void compute_integers(const Step& step, ValueRange& value) const;
  void compute_reals(const Step& step, ValueRange& value) const;
  void compute_select(const Step& step, ValueRange& value) const;
  void load(const Step& step, ValueRange& value);

  const Integers& whole(const Step& step, int operand) const {
    return values_[step.operands[operand]].whole;
  }
  Reals real(int step) const;
  Reals real(const Step& step, int operand) const { return real(step.operands[operand]); }

  const Floats floats_;
  std::vector<Step> steps_;
  std::vector<ValueRange> values_;  // one a step
  std::unordered_map<const Node*, int> step_of_;
  std::map<Key, int> compiled_;
  std::unordered_map<const void*, std::unique_ptr<RangeTable>> tables_;
  std::vector<Integers> ranges_;  // of the read at work
  const Expression expression_;   // holds the nodes and tensors alive
  Box box_;
  bool ran_ = false;
};

}  // namespace nanoflex::flex
