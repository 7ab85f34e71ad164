// Optimizers' arithmetic, with neighbouring elements as vector lanes.
#pragma once

#include "model/cpu/elements.h"
#include "model/cpu/update_kernels.h"

namespace nanoflex::cpu {
namespace {

template <int kLanes>
typename Vectors<kLanes>::F square_root(typename Vectors<kLanes>::F x) {
  for (int lane = 0; lane < kLanes; ++lane) x[lane] = __builtin_sqrtf(x[lane]);
  return x;
}

template <int kLanes>
bool all_zero(const float* x, int64_t count) {
  using V = Vectors<kLanes>;
  typename V::I found{};
  for (int64_t i = 0; i < count; i += kLanes) found |= take<kLanes>(x + i, count - i) != 0.0f;
  return !V::any(found);
}

template <int kLanes>
class AdamWTile {
  using V = Vectors<kLanes>;
  using F = typename V::F;

 public:
  AdamWTile(const AdamWFactors& factors, const AdamWSpan& span) : f_(factors), p_(span) {}

  void run() const {
    if (p_.gradient || p_.copy) return update(0, p_.count);
    constexpr int64_t kBlock = 256;
    for (int64_t i = 0; i < p_.count; i += kBlock) {
      const int64_t count = smaller(kBlock, p_.count - i);
      if (!stands_still(i, count)) update(i, i + count);
    }
  }

 private:
  // Of an embedding's rows most may never have had a gradient: without moments, nothing moves.
  bool stands_still(int64_t begin, int64_t count) const {
    return all_zero<kLanes>(p_.mean + begin, count) && all_zero<kLanes>(p_.square + begin, count);
  }

  // Moments without gradients fade. Below fp32's normal numbers they move no value any more, and
  // arithmetic on them is many times slower.
  static F normal_or_zero(F x) { return ((x < kSmallest) & (x > -kSmallest)) != 0 ? F{} : x; }

  void update(int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; i += kLanes) {
      const int64_t left = end - i;
      const F g = p_.gradient ? take<kLanes>(p_.gradient + i, left) : F{};
      F mean = take<kLanes>(p_.mean + i, left), square = take<kLanes>(p_.square + i, left);
      mean = normal_or_zero(mean + (g - mean) * f_.mean_weight);
      square = normal_or_zero(square * f_.square_decay + g * g * f_.square_weight);
      const F divisor = square_root<kLanes>(square) * f_.root_scale + f_.epsilon;
      const F value = take<kLanes>(p_.value + i, left) - mean * f_.rate / divisor;
      give<kLanes>(mean, p_.mean + i, left);
      give<kLanes>(square, p_.square + i, left);
      give<kLanes>(value, p_.value + i, left);
      if (p_.copy) give<kLanes>(value, p_.copy + i, left);
    }
  }

  static constexpr float kSmallest = 0x1p-126F;
  const AdamWFactors f_;
  const AdamWSpan p_;
};

template <int kLanes>
void run_adamw(const AdamWFactors& factors, const AdamWSpan& span) {
  AdamWTile<kLanes>(factors, span).run();
}

template <int kLanes>
void run_momentum(const MomentumSpan& p) {
  for (int64_t i = 0; i < p.count; i += kLanes) {
    const int64_t left = p.count - i;
    const auto g = take<kLanes>(p.gradient + i, left);
    auto momentum = take<kLanes>(p.momentum + i, left);
    momentum += (g - momentum) * p.weight;
    give<kLanes>(momentum, p.momentum + i, left);
    give<kLanes>(momentum - (momentum - g) * p.weight, p.direction + i, left);
  }
}

template <int kLanes>
void run_move(const MoveSpan& p) {
  for (int64_t i = 0; i < p.count; i += kLanes) {
    const int64_t left = p.count - i;
    const auto value =
        take<kLanes>(p.value + i, left) - take<kLanes>(p.direction + i, left) * p.rate;
    give<kLanes>(value, p.value + i, left);
    if (p.copy) give<kLanes>(value, p.copy + i, left);
  }
}

template <int kLanes>
UpdateKernels update_kernels_of() {
  return {run_adamw<kLanes>, run_momentum<kLanes>, run_move<kLanes>};
}

}  // namespace
}  // namespace nanoflex::cpu
