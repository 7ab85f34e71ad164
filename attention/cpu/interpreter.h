// Runs a program's code on tiles, one instruction at a time over as many pairs as stay in the L1
// cache: what an instruction costs to decode is small beside them.
#pragma once

#include <type_traits>

#include "attention/cpu/elementary.h"
#include "attention/cpu/gemm.h"
#include "attention/cpu/program.h"

namespace nanoflex::cpu {
namespace {

/// Where the values of one way to vary lie: those of slot s begin at data + s * slot, those of the
/// n-th kLanes lanes n * panel further on.
struct Values {
  float* data = nullptr;
  ptrdiff_t slot = 0, panel = 0;
  bool lanes = false;  ///< side by side for each lane, else one for each row
};

/// kRow: from one row of pairs to the next.
template <int kLanes, int kRow>
class Interpreter {
  using V = Vectors<kLanes>;
  using F = typename V::F;
  using I = typename V::I;
  using E = Elementary<kLanes>;

 public:
  Values nothing, query, key, pair;
  Columns<float> scores{};       ///< slot kScoreSlot of the pairs, where they lie
  int rows = 1, width = kLanes;  ///< width: a multiple of kLanes

  void run(CodeSpan code) const {
    for (const Instruction* at = code.begin; at != code.end; ++at) step(*at);
  }

  /// Where the value lies.
  Columns<float> place(Value value) const {
    if (value.vary == Vary::kPair && value.slot == kScoreSlot) return scores;
    const Values& values = of(value.vary);
    return {values.data + value.slot * values.slot, kRow, values.panel};
  }

 private:
  // How an operand is read: one for each row, one for each lane, or one for each pair of them.
  enum Kind { kRows, kLane, kPairs };
  template <Kind kKind>
  using Is = std::integral_constant<Kind, kKind>;

  const Values& of(Vary vary) const {
    return vary == Vary::kNothing ? nothing
           : vary == Vary::kQuery ? query
           : vary == Vary::kKey   ? key
                                  : pair;
  }

  template <Kind kKind>
  static F load(const float* data, int row) {
    if constexpr (kKind == kRows) return V::broadcast(data[row]);
    return V::load(kKind == kLane ? data : data + row * kRow);
  }

  // out = function(a, b, c)
  template <Kind kA, Kind kB, Kind kC, typename Function>
  void sweep(const Instruction& at, const Function& function) const {
    const Columns<float> a = place(at.operands[0]), b = place(at.operands[1]);
    const Columns<float> c = place(at.operands[2]), out = place(at.out);
    for (int n = 0; n < width / kLanes; ++n) {
      const float *x = a.data + n * a.panel, *y = b.data + n * b.panel, *z = c.data + n * c.panel;
      float* result = out.data + n * out.panel;
#pragma GCC unroll 4
      for (int row = 0; row < rows; ++row) {
        V::store(result + row * kRow,
                 function(load<kA>(x, row), load<kB>(y, row), load<kC>(z, row)));
      }
    }
  }

  template <typename Function>
  void with_kind(Value operand, const Function& function) const {
    if (operand.vary == Vary::kPair) return function(Is<kPairs>());
    of(operand.vary).lanes ? function(Is<kLane>()) : function(Is<kRows>());
  }

  template <typename Function>
  void unary(const Instruction& at, const Function& function) const {
    with_kind(at.operands[0],
              [&](auto a) { sweep<a, kRows, kRows>(at, [&](F x, F, F) { return function(x); }); });
  }

  template <typename Function>
  void binary(const Instruction& at, const Function& function) const {
    with_kind(at.operands[0], [&](auto a) {
      with_kind(at.operands[1], [&](auto b) {
        sweep<a, b, kRows>(at, [&](F x, F y, F) { return function(x, y); });
      });
    });
  }

  template <typename Function>
  void integers(const Instruction& at, const Function& function) const {
    binary(at, [&](F a, F b) { return E::number(function(E::bits(a), E::bits(b))); });
  }

  template <typename Function>
  void ternary(const Instruction& at, const Function& function) const {
    with_kind(at.operands[0], [&](auto a) {
      with_kind(at.operands[1], [&](auto b) {
        with_kind(at.operands[2], [&](auto c) { sweep<a, b, c>(at, function); });
      });
    });
  }

  // The factors vary with nothing.
  void tanh(const Instruction& at) const {
    constexpr int kAtOnce = 4;  // rows
    const auto factor = [&](int i) { return V::broadcast(*place(at.operands[i]).data); };
    const F in = factor(1), out = factor(2);
    with_kind(at.operands[0], [&](auto a) {
      const Columns<float> from = place(at.operands[0]), to = place(at.out);
      for (int n = 0; n < width / kLanes; ++n) {
        const float* x = panel_of(from, n).data;
        float* result = panel_of(to, n).data;
        int row = 0;
        for (; row + kAtOnce <= rows; row += kAtOnce) {
          F y[kAtOnce];
#pragma GCC unroll 4
          for (int i = 0; i < kAtOnce; ++i) y[i] = load<a>(x, row + i) * in;
          E::tanh(y);
#pragma GCC unroll 4
          for (int i = 0; i < kAtOnce; ++i) V::store(result + (row + i) * kRow, y[i] * out);
        }
        for (; row < rows; ++row)
          V::store(result + row * kRow, E::tanh(load<a>(x, row) * in) * out);
      }
    });
  }

  void gather(const Instruction& at) const {
    unary(at, [&](F index) {
      const I place = E::bits(index);
      F result;
      for (int lane = 0; lane < kLanes; ++lane) result[lane] = at.table[place[lane]];
      return result;
    });
  }

  void step(const Instruction& at) const {
    switch (at.code) {
      case Code::kCopy:
        return unary(at, [](F a) { return a; });
      case Code::kToFloat:
        return unary(at, [](F a) { return __builtin_convertvector(E::bits(a), F); });
      case Code::kFloor:
        return unary(at, [](F a) { return E::number(E::floor(a)); });
      case Code::kIntNegate:
        return unary(at, [](F a) { return E::number(-E::bits(a)); });
      case Code::kIntAbs:
        return unary(at, [](F a) {
          const I x = E::bits(a);
          return E::number(x < 0 ? -x : x);
        });
      case Code::kNegate:
        return unary(at, [](F a) { return -a; });
      case Code::kAbs:
        return unary(at, E::abs);
      case Code::kExp:
        return unary(at, E::exp);
      case Code::kLog:
        return unary(at, E::log);
      case Code::kSqrt:
        return unary(at, E::sqrt);
      case Code::kTanh:
        return tanh(at);
      case Code::kSigmoid:
        return unary(at, E::sigmoid);
      case Code::kNot:
        return unary(at, [](F a) { return E::number(~E::bits(a)); });
      case Code::kMultiplyAdd:
        return ternary(at, [](F a, F b, F c) { return a * b + c; });
      case Code::kTimesDifference:
        return ternary(at, [](F a, F b, F c) { return a * (b - c); });
      case Code::kSelect:
        return ternary(at, [](F a, F b, F c) { return E::bits(a) != 0 ? b : c; });
      case Code::kLoad:
        return gather(at);
      default:
        return at.code < Code::kAdd ? step_integers(at) : step_floats(at);
    }
  }

  void step_integers(const Instruction& at) const {
    switch (at.code) {
      case Code::kIntAdd:
        return integers(at, [](I a, I b) { return a + b; });
      case Code::kIntSubtract:
        return integers(at, [](I a, I b) { return a - b; });
      case Code::kIntMultiply:
        return integers(at, [](I a, I b) { return a * b; });
      case Code::kIntDivide:
        return integers(at, [](I a, I b) { return E::divide(a, b); });
      case Code::kIntRemainder:
        return integers(at, [](I a, I b) { return E::remainder(a, b); });
      case Code::kIntMin:
        return integers(at, [](I a, I b) { return a < b ? a : b; });
      case Code::kIntMax:
        return integers(at, [](I a, I b) { return a > b ? a : b; });
      case Code::kIntEqual:
        return integers(at, [](I a, I b) { return a == b; });
      case Code::kIntNotEqual:
        return integers(at, [](I a, I b) { return a != b; });
      case Code::kIntLess:
        return integers(at, [](I a, I b) { return a < b; });
      default:
        return integers(at, [](I a, I b) { return a <= b; });
    }
  }

  void step_floats(const Instruction& at) const {
    switch (at.code) {
      case Code::kAdd:
        return binary(at, [](F a, F b) { return a + b; });
      case Code::kSubtract:
        return binary(at, [](F a, F b) { return a - b; });
      case Code::kMultiply:
        return binary(at, [](F a, F b) { return a * b; });
      case Code::kDivide:
        return binary(at, [](F a, F b) { return a / b; });
      case Code::kRemainder:
        return binary(at, [](F a, F b) { return E::remainder(a, b); });
      case Code::kMin:
        return binary(at, E::min);
      case Code::kMax:
        return binary(at, E::max);
      case Code::kEqual:
        return binary(at, [](F a, F b) { return E::number(a == b); });
      case Code::kNotEqual:
        return binary(at, [](F a, F b) { return E::number(a != b); });
      case Code::kLess:
        return binary(at, [](F a, F b) { return E::number(a < b); });
      case Code::kLessEqual:
        return binary(at, [](F a, F b) { return E::number(a <= b); });
      case Code::kAnd:
        return integers(at, [](I a, I b) { return a & b; });
      default:
        return integers(at, [](I a, I b) { return a | b; });
    }
  }
};

}  // namespace
}  // namespace nanoflex::cpu
