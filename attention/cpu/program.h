// What the tile kernels run of a mask or score expression: straight-line code over values that vary
// with nothing, with the query, with the key, or with both. Plain data, like problem.h.
#pragma once

#include <cstdint>

namespace nanoflex::cpu {

/// Operations on 32-bit lanes: floats, integers, and truth values (0 or -1). A comparison by > or
/// >= is one by < or <= with its operands exchanged.
enum class Code : uint8_t {
  kCopy,
  kToFloat,
  kFloor,
  kIntNegate,
  kIntAbs,
  kNegate,
  kAbs,
  kExp,
  kLog,
  kSqrt,
  kTanh,  // tanh(a b) c, of b and c that vary with nothing
  kSigmoid,
  kNot,
  kIntAdd,
  kIntSubtract,
  kIntMultiply,
  kIntDivide,
  kIntRemainder,
  kIntMin,
  kIntMax,
  kIntEqual,
  kIntNotEqual,
  kIntLess,
  kIntLessEqual,
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kRemainder,
  kMin,
  kMax,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kAnd,
  kOr,
  kMultiplyAdd,      // a b + c
  kTimesDifference,  // a (b - c)
  kSelect,
  kLoad,  // table[a]
};

/// What a value varies with, beside the batch and the head.
enum class Vary : uint8_t { kNothing, kQuery, kKey, kPair };

/// A value: one of those that vary alike.
struct Value {
  Vary vary = Vary::kNothing;
  uint16_t slot = 0;
};

struct Instruction {
  Code code;
  Value out;
  Value operands[3] = {};
  const float* table = nullptr;  ///< of kLoad, also when its elements are integers
};

/// Instructions [begin, end).
struct CodeSpan {
  const Instruction* begin = nullptr;
  const Instruction* end = nullptr;
};

/// A read of a captured tensor to which gradients flow.
struct Read {
  Value derivative;  ///< of the score, by what was read; varies with the pair
  Value index;       ///< of the element that was read, counted from `offset`
  int64_t offset;    ///< of the tensor among the sums of gradients
};

/// Where the gradients of captured tensors are added up.
struct GradientSums {
  static constexpr int64_t kChunk = 64;
  double* sums = nullptr;
  uint8_t* touched = nullptr;  ///< 1 for each chunk of sums that something was added to

  void add(int64_t at, double x) const {
    sums[at] += x;
    touched[at / kChunk] = 1;
  }
};

/// A slot of kNothing and its bits.
struct Constant {
  uint16_t slot;
  int32_t bits;
};

/// Slots that are filled before any instruction runs.
constexpr uint16_t kBatchSlot = 0, kHeadSlot = 1, kScaleSlot = 2;  // vary with nothing
constexpr uint16_t kPositionSlot = 0;  // the query's position and the key's number, of theirs
constexpr uint16_t kScoreSlot = 0;     // of the pairs: q k^T, in the end the changed score

/// The code of one pass. What varies with less runs first: `nothing` once for each head, `query`
/// and `key` once for each block of them, the others on tiles.
struct Program {
  CodeSpan nothing, query, key;
  CodeSpan mask;   ///< run on tiles that the mask cuts
  CodeSpan score;  ///< run on every tile; in the backward pass with its derivatives
  bool has_mask = false, has_score = false;
  Value visible;     ///< result of `mask`
  Value derivative;  ///< beside the changed score a result of `score`, in the backward pass only
  const Read* reads = nullptr;
  int32_t read_count = 0;

  const Constant* constants = nullptr;
  int32_t constant_count = 0;
  int32_t slots[4] = {3, 1, 1, 1};  ///< by Vary
};

}  // namespace nanoflex::cpu
