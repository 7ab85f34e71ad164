// Turns expression trees into numbered values, equal ones once, and those into code for the tile
// kernels.
#pragma once

#include <ATen/Functions.h>

#include <cstdint>
#include <map>
#include <optional>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "attention/cpu/program.h"
#include "attention/flex/bounds.h"
#include "attention/flex/expression.h"

namespace nanoflex::flex {

/// Code that is shared by all that is lowered, with what it points to.
struct SharedCode {
  std::vector<cpu::Instruction> nothing, query, key;  ///< by what their values vary with
  std::vector<cpu::Constant> constants;
  std::vector<at::Tensor> tables;   ///< but for captured tensors that are read as they lie
  int32_t slots[4] = {3, 1, 1, 1};  ///< by cpu::Vary; the first ones are filled beforehand
};

class TileCodeBuilder {
 public:
  /// `box`: all index values; `forward`: no derivatives will be asked for. REQUIRES for what is
  /// lowered: integers fit 32 bits, indices their tensors, for every point of the box.
  TileCodeBuilder(const Box& box, bool forward);

  /// The number of the expression's value, converted to `type`, for each pair.
  int lower(const Expression& expression, Type type);
  /// The number of an integer: which element of its tensor is read, row by row.
  int lower_index(const Expression& read);

  /// Code for those of the numbered values that vary with the pair, and where all of them are left;
  /// the rest goes to the shared code.
  std::vector<cpu::Value> emit(const std::vector<int>& roots, std::vector<cpu::Instruction>& code);
  /// The same, where the first one is left in place of the score.
  std::vector<cpu::Value> emit_score(const std::vector<int>& roots,
                                     std::vector<cpu::Instruction>& code);

  SharedCode take() { return std::move(shared_); }

 private:
  enum Leaf { kNone, kBatch, kHead, kScale, kPosition, kProduct, kConstant };
  struct Entry {
    Leaf leaf = kNone;
    cpu::Vary vary = cpu::Vary::kNothing;
    cpu::Code code = cpu::Code::kCopy;
    std::vector<int> operands = {};
    int32_t constant = 0;
    const float* table = nullptr;
    auto key() const { return std::tie(leaf, vary, code, operands, constant, table); }
    bool operator<(const Entry& other) const { return key() < other.key(); }
  };

  void begin(const Expression& tree);
  int number(const Entry& entry);
  int operation(cpu::Code code, const std::vector<int>& operands, const float* table = nullptr);
  int constant(int32_t bits);
  int constant(float value);
  int value(const Expression& expression);
  int value_as(const Expression& expression, Type type);
  int as_float(const Expression& integer);
  int as_pair(int id);
  int compute(const Node& node);
  int compute_arithmetic(const Node& node);
  std::optional<int> divide_by_constant(int dividend, int divisor);
  std::optional<int> multiply_add(int product, int term);
  int multiply(int a, int b);
  std::optional<int> scaled_by(int scaled, int factor);
  std::optional<int> times_difference(int factor, int difference);
  int tanh(int x);
  std::optional<int> times_tanh(int factor, int tanh);
  int load(const Node& node);
  int flat_index(const Node& load);
  const float* table(const Node& load);
  bool exact_in_float(const Expression& integer) const;

  std::vector<cpu::Value> emit(const std::vector<int>& roots, std::vector<cpu::Instruction>& code,
                               int in_place);
  cpu::Instruction instruction(int id) const;
  std::vector<int> last_uses(const std::vector<int>& roots) const;
  void place_small(int id);

  const Box box_;
  const bool forward_;
  bool may_fuse_ = true;  // multiply and add in one operation
  SharedCode shared_;
  std::optional<Bounder> bounder_;  // of the present tree
  std::unordered_map<const Node*, int> lowered_;
  std::vector<Entry> entries_;  // operands come before what they make
  std::map<Entry, int> numbers_;
  std::unordered_map<const void*, const float*> tables_;
  std::unordered_map<int, cpu::Value> places_;
};

}  // namespace nanoflex::flex
