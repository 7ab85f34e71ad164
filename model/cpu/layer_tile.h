// Normalisation, rotation and the MLP's non-linearity, with neighbours of a row as vector lanes.
#pragma once

#include "attention/cpu/elementary.h"
#include "attention/cpu/tiles.h"
#include "model/cpu/elements.h"
#include "model/cpu/layer_kernels.h"

namespace nanoflex::cpu {
namespace {

template <int kLanes>
float sum_of(typename Vectors<kLanes>::F x) {
  float sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += x[lane];
  return sum;
}

// Rows of a kernel's call. A rotated row's halves are taken side by side.
template <int kLanes, typename Input>
class NormTile {
  using V = Vectors<kLanes>;
  using F = typename V::F;

 public:
  explicit NormTile(const NormRows& rows) : p_(rows), half_(rows.cos ? rows.C / 2 : rows.C) {}

  void forward(const Input* x, Input* y, float* scale, int64_t row) const {
    x += row * p_.C, y += row * p_.C;
    F squares{};
    for (int64_t c = 0; c < half_; c += kLanes) {
      const Pair u = rotated(row, x, c);
      squares += u.first * u.first + u.second * u.second;
    }
    const float mean = sum_of<kLanes>(squares) / static_cast<float>(p_.C);
    const float factor = 1 / __builtin_sqrtf(mean + p_.epsilon);
    scale[row] = factor;
    for (int64_t c = 0; c < half_; c += kLanes) {
      const Pair u = rotated(row, x, c);
      put(y, c, {u.first * factor, u.second * factor});
    }
  }

  void backward(const Input* y, const float* scale, const Input* dy, Input* dx, int64_t row) const {
    y += row * p_.C, dy += row * p_.C, dx += row * p_.C;
    F products{};
    for (int64_t c = 0; c < half_; c += kLanes) {
      const Pair a = plain(y, c), b = plain(dy, c);
      products += a.first * b.first + a.second * b.second;
    }
    const float mean = sum_of<kLanes>(products) / static_cast<float>(p_.C), factor = scale[row];
    for (int64_t c = 0; c < half_; c += kLanes) {
      const Pair a = plain(y, c), b = plain(dy, c);
      const Pair du = {(b.first - a.first * mean) * factor, (b.second - a.second * mean) * factor};
      put(dx, c, p_.cos ? turned(row, du, c, -1) : du);
    }
  }

 private:
  struct Pair {
    F first, second;  // of a row that is not rotated, zero
  };

  Pair plain(const Input* row, int64_t c) const {
    const F first = take<kLanes>(row + c, half_ - c);
    return {first, p_.cos ? take<kLanes>(row + half_ + c, half_ - c) : F{}};
  }
  Pair rotated(int64_t row, const Input* x, int64_t c) const {
    const Pair pair = plain(x, c);
    return p_.cos ? turned(row, pair, c, 1) : pair;
  }
  // y1 = x1 cos + x2 sin, y2 = -x1 sin + x2 cos; the other way for direction -1.
  Pair turned(int64_t row, const Pair& x, int64_t c, float direction) const {
    const int64_t at = row / p_.heads % p_.positions * half_ + c;
    const F cos = take<kLanes>(p_.cos + at, half_ - c);
    const F sin = take<kLanes>(p_.sin + at, half_ - c) * direction;
    return {x.first * cos + x.second * sin, x.second * cos - x.first * sin};
  }
  void put(Input* row, int64_t c, const Pair& pair) const {
    give<kLanes>(pair.first, row + c, half_ - c);
    if (p_.cos) give<kLanes>(pair.second, row + half_ + c, half_ - c);
  }

  const NormRows& p_;
  const int64_t half_;
};

template <int kLanes, typename Input>
void run_norm(const NormRows& rows, const void* x, void* y, float* scale, int64_t begin,
              int64_t end) {
  const NormTile<kLanes, Input> tile(rows);
  for (int64_t row = begin; row < end; ++row) {
    tile.forward(static_cast<const Input*>(x), static_cast<Input*>(y), scale, row);
  }
}

template <int kLanes, typename Input>
void run_norm_backward(const NormRows& rows, const void* y, const float* scale, const void* dy,
                       void* dx, int64_t begin, int64_t end) {
  const NormTile<kLanes, Input> tile(rows);
  for (int64_t row = begin; row < end; ++row) {
    tile.backward(static_cast<const Input*>(y), scale, static_cast<const Input*>(dy),
                  static_cast<Input*>(dx), row);
  }
}

// NaN stays: it is not less than 0.
template <int kLanes>
typename Vectors<kLanes>::F not_below_zero(typename Vectors<kLanes>::F x) {
  return Vectors<kLanes>::max(typename Vectors<kLanes>::F{}, x);
}

template <int kLanes, typename Input>
void run_relu_squared(const void* x, void* y, int64_t count) {
  const auto* in = static_cast<const Input*>(x);
  auto* out = static_cast<Input*>(y);
  for (int64_t i = 0; i < count; i += kLanes) {
    const auto value = take<kLanes>(in + i, count - i);
    const auto positive = not_below_zero<kLanes>(value);
    give<kLanes>(positive * positive, out + i, count - i);
  }
}

template <int kLanes, typename Input>
void run_relu_squared_backward(const void* x, const void* dy, void* dx, int64_t count) {
  const auto *in = static_cast<const Input*>(x), *above = static_cast<const Input*>(dy);
  auto* out = static_cast<Input*>(dx);
  for (int64_t i = 0; i < count; i += kLanes) {
    const auto value = take<kLanes>(in + i, count - i);
    const auto positive = not_below_zero<kLanes>(value);
    give<kLanes>(positive * 2.0f * take<kLanes>(above + i, count - i), out + i, count - i);
  }
}

template <int kLanes, typename Input>
void run_soft_cap(const void* x, float* y, float cap, int64_t count) {
  const auto* in = static_cast<const Input*>(x);
  const float inverse = 1 / cap;
  for (int64_t i = 0; i < count; i += kLanes) {
    const auto tanh = Elementary<kLanes>::tanh(take<kLanes>(in + i, count - i) * inverse);
    give<kLanes>(tanh * cap, y + i, count - i);
  }
}

template <typename Math, typename Input>
LayerKernels layer_kernels_of() {
  constexpr int kLanes = Math::kLanes;
  return {run_norm<kLanes, Input>, run_norm_backward<kLanes, Input>,
          run_relu_squared<kLanes, Input>, run_relu_squared_backward<kLanes, Input>,
          run_soft_cap<kLanes, Input>};
}

}  // namespace
}  // namespace nanoflex::cpu
