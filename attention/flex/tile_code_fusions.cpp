// What the builder of tile code does in fewer operations than are written: each pass over a tile
// that is saved counts.
#include <cmath>

#include "attention/flex/tile_code_builder.h"

namespace nanoflex::flex {

using cpu::Code;
using cpu::Vary;

// Times the reciprocal, which is as exact as the error bounds ask for and several times faster.
std::optional<int> TileCodeBuilder::divide_by_constant(int dividend, int divisor) {
  const Entry& entry = entries_[divisor];
  if (entry.leaf != kConstant) return {};
  const float reciprocal = 1 / __builtin_bit_cast(float, entry.constant);
  if (!std::isnormal(reciprocal)) return {};
  return multiply(dividend, constant(reciprocal));
}

int TileCodeBuilder::multiply(int a, int b) {
  if (may_fuse_) {
    for (const auto& [x, y] : {std::pair(a, b), std::pair(b, a)}) {
      if (const auto product = scaled_by(x, y)) return *product;
      if (const auto product = times_difference(x, y)) return *product;
      if (const auto product = times_tanh(x, y)) return *product;
    }
  }
  return operation(Code::kMultiply, {a, b});
}

// The score times a constant: its scale takes the constant in. Not a large one, with which it might
// overflow where what it multiplies would not.
std::optional<int> TileCodeBuilder::scaled_by(int scaled, int factor) {
  const Entry &product = entries_[scaled], &by = entries_[factor];
  if (product.code != Code::kMultiply || by.leaf != kConstant) return {};
  if (entries_[product.operands[1]].leaf != kScale) return {};
  const float size = std::abs(__builtin_bit_cast(float, by.constant));
  if (!(size >= 0x1p-20f && size <= 1)) return {};
  const std::vector<int> operands = product.operands;
  return operation(Code::kMultiply,
                   {operands[0], operation(Code::kMultiply, {operands[1], factor})});
}

// In one instruction, where only the difference varies with the pair, as with (kv - q) of ALiBi.
std::optional<int> TileCodeBuilder::times_difference(int factor, int difference) {
  const Entry& entry = entries_[difference];
  if (entry.code != Code::kSubtract || entry.vary != Vary::kPair) return {};
  const std::vector<int> terms = entry.operands;
  for (const int part : {factor, terms[0], terms[1]}) {
    if (entries_[part].vary == Vary::kPair) return {};
  }
  return operation(Code::kTimesDifference, {factor, terms[0], terms[1]});
}

int TileCodeBuilder::tanh(int x) {
  const Entry entry = entries_[x];
  const bool product = may_fuse_ && entry.code == Code::kMultiply &&
                       entries_[entry.operands[1]].vary == Vary::kNothing;
  std::vector<int> operands = product ? entry.operands : std::vector<int>{x, constant(1.0f)};
  operands.push_back(constant(1.0f));
  return operation(Code::kTanh, operands);
}

// In one instruction, in the forward pass: a derivative needs tanh itself.
std::optional<int> TileCodeBuilder::times_tanh(int factor, int tanh) {
  const Entry entry = entries_[tanh];
  if (!forward_ || entry.code != Code::kTanh || entry.operands[2] != constant(1.0f)) return {};
  if (entries_[factor].vary != Vary::kNothing) return {};
  return operation(Code::kTanh, {entry.operands[0], entry.operands[1], factor});
}

// In one instruction, unless the product varies with less than the sum and so costs nothing.
std::optional<int> TileCodeBuilder::multiply_add(int product, int term) {
  const Entry& entry = entries_[product];
  if (entry.leaf != kNone || entry.code != Code::kMultiply || entry.vary != Vary::kPair) return {};
  const std::vector<int> factors = entry.operands;
  return operation(Code::kMultiplyAdd, {factors[0], factors[1], term});
}

}  // namespace nanoflex::flex
