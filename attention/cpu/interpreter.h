// Runs a program's code on tiles, one instruction at a time over as many pairs as stay in the L1
// cache: what an instruction costs to decode is small beside them.
#pragma once

#include "attention/cpu/elementary.h"
#include "attention/cpu/program.h"

namespace nanoflex::cpu {
namespace {

/// Where the values of one way to vary lie: slot s of row r begins at data + s * slot + r * row.
struct Values {
  float* data = nullptr;
  ptrdiff_t slot = 0, row = 0;
  bool lanes = false;  ///< side by side for each lane, else one for the whole row
};

template <int kLanes>
class Interpreter {
  using V = Vectors<kLanes>;
  using F = typename V::F;
  using I = typename V::I;
  using E = Elementary<kLanes>;

 public:
  Values nothing, query, key, pair;
  int rows = 1, width = kLanes;  ///< width: a multiple of kLanes

  void run(CodeSpan code) const {
    for (const Instruction* at = code.begin; at != code.end; ++at) step(*at);
  }

  float* place(Value value) const {
    const Values& values = of(value.vary);
    return values.data + value.slot * values.slot;
  }

 private:
  struct Source {
    const float* data;
    ptrdiff_t row;
    bool lanes;
  };

  const Values& of(Vary vary) const {
    return vary == Vary::kNothing ? nothing
           : vary == Vary::kQuery ? query
           : vary == Vary::kKey   ? key
                                  : pair;
  }
  Source source(Value value) const {
    const Values& values = of(value.vary);
    return {values.data + value.slot * values.slot, values.row, values.lanes};
  }

  template <bool kAlongLanes>
  static F load(const float* data, int lane) {
    if constexpr (kAlongLanes) {
      return V::load(data + lane);
    } else {
      return V::broadcast(*data);
    }
  }

  // out = function(a, b, c), where an operand is a lane's own or the whole row's.
  template <bool kA, bool kB, bool kC, typename Function>
  void sweep(const Instruction& at, const Function& function) const {
    const Source a = source(at.operands[0]), b = source(at.operands[1]), c = source(at.operands[2]);
    const Source out = source(at.out);
    for (int row = 0; row < rows; ++row) {
      const float *x = a.data + row * a.row, *y = b.data + row * b.row, *z = c.data + row * c.row;
      auto* result = const_cast<float*>(out.data) + row * out.row;
      for (int lane = 0; lane < width; lane += kLanes) {
        V::store(result + lane, function(load<kA>(x, lane), load<kB>(y, lane), load<kC>(z, lane)));
      }
    }
  }

  template <typename Function>
  void unary(const Instruction& at, const Function& function) const {
    const auto one = [&](F a, F, F) { return function(a); };
    of(at.operands[0].vary).lanes ? sweep<true, false, false>(at, one)
                                  : sweep<false, false, false>(at, one);
  }

  template <typename Function>
  void binary(const Instruction& at, const Function& function) const {
    const auto two = [&](F a, F b, F) { return function(a, b); };
    const bool a = of(at.operands[0].vary).lanes, b = of(at.operands[1].vary).lanes;
    if (a && b) return sweep<true, true, false>(at, two);
    if (a) return sweep<true, false, false>(at, two);
    if (b) return sweep<false, true, false>(at, two);
    sweep<false, false, false>(at, two);
  }

  template <typename Function>
  void integers(const Instruction& at, const Function& function) const {
    binary(at, [&](F a, F b) { return E::number(function(E::bits(a), E::bits(b))); });
  }

  template <typename Function>
  void ternary(const Instruction& at, const Function& function) const {
    const int lanes = of(at.operands[0].vary).lanes + 2 * of(at.operands[1].vary).lanes +
                      4 * of(at.operands[2].vary).lanes;
    switch (lanes) {
      case 0:
        return sweep<false, false, false>(at, function);
      case 1:
        return sweep<true, false, false>(at, function);
      case 2:
        return sweep<false, true, false>(at, function);
      case 3:
        return sweep<true, true, false>(at, function);
      case 4:
        return sweep<false, false, true>(at, function);
      case 5:
        return sweep<true, false, true>(at, function);
      case 6:
        return sweep<false, true, true>(at, function);
      default:
        return sweep<true, true, true>(at, function);
    }
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
        return unary(at, E::tanh);
      case Code::kSigmoid:
        return unary(at, E::sigmoid);
      case Code::kNot:
        return unary(at, [](F a) { return E::number(~E::bits(a)); });
      case Code::kMultiplyAdd:
        return ternary(at, [](F a, F b, F c) { return a * b + c; });
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
