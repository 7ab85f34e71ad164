// A Problem of reference.h in the emulator's device memory.
#pragma once

#include "tests/simt/ptx.h"
//
#include "attention/cuda/params.h"
#include "attention/philox.h"
#include "tests/simt/reference.h"

namespace nanoflex::simt {

template <typename T>
struct Dtype;
template <>
struct Dtype<__nv_bfloat16> {
  static constexpr double kEpsilon = 0x1p-7;
  static double number(__nv_bfloat16 x) { return __bfloat162float(x); }
  static __nv_bfloat16 from(double x) { return __float2bfloat16_rn(static_cast<float>(x)); }
};
template <>
struct Dtype<__half> {
  static constexpr double kEpsilon = 0x1p-10;
  static double number(__half x) { return __half2float(x); }
  static __half from(double x) { return __float2half_rn(static_cast<float>(x)); }
};
template <>
struct Dtype<float> {
  static constexpr double kEpsilon = 0x1p-23;
  static double number(float x) { return x; }
  static float from(double x) { return static_cast<float>(x); }
};

template <typename T>
double rounded(double x) {
  return Dtype<T>::number(Dtype<T>::from(x));
}

/// A tensor [B, heads, length, D] as a kernel sees it: rows padded to 16 bytes, the heads inside or
/// outside the time.
template <typename T>
struct DeviceTensor {
  int B, heads, length, D;
  cuda::Strides strides;
  std::vector<size_t> places;  // of each element
  Buffer<T> buffer;

  static int padded(int D) { return (D + 7) / 8 * 8; }
  static cuda::Strides layout(const Problem& p, int heads, int length) {
    const int64_t row = padded(p.D);
    if (p.time_first) return {heads * length * row, row, heads * row};
    return {heads * length * row, length * row, row};
  }
  static std::vector<size_t> all_places(const Problem& p, int heads, int length) {
    const cuda::Strides strides = layout(p, heads, length);
    std::vector<size_t> places;
    for (int b = 0; b < p.B; ++b) {
      for (int h = 0; h < heads; ++h) {
        for (int t = 0; t < length; ++t) {
          for (int d = 0; d < p.D; ++d) {
            places.push_back(b * strides.b + h * strides.h + t * strides.t + d);
          }
        }
      }
    }
    return places;
  }
  static std::vector<T> laid_out(const Problem& p, int heads, int length, const Numbers& values) {
    const std::vector<size_t> places = all_places(p, heads, length);
    // What lies between the rows must not matter.
    std::vector<T> memory(size_t(p.B) * heads * length * padded(p.D),
                          Dtype<T>::from(std::numeric_limits<double>::quiet_NaN()));
    for (size_t i = 0; i < values.size(); ++i) memory[places[i]] = Dtype<T>::from(values[i]);
    return memory;
  }

  DeviceTensor(const Problem& p, int heads, int length, const Numbers& values)
      : B(p.B),
        heads(heads),
        length(length),
        D(p.D),
        strides(layout(p, heads, length)),
        places(all_places(p, heads, length)),
        buffer(laid_out(p, heads, length, values), Access::read) {}
  DeviceTensor(const Problem& p, int heads, int length)
      : B(p.B),
        heads(heads),
        length(length),
        D(p.D),
        strides(layout(p, heads, length)),
        places(all_places(p, heads, length)),
        buffer(size_t(p.B) * heads * length * padded(p.D)) {}

  Numbers numbers() const {
    Numbers result;
    result.reserve(places.size());
    for (size_t place : places) result.push_back(Dtype<T>::number(buffer.data()[place]));
    return result;
  }
};

inline Numbers numbers(const Buffer<float>& buffer) {
  return Numbers(buffer.data(), buffer.data() + buffer.size());
}

/// q, k and v in device memory, and the part of the parameters that all kernels share.
template <typename T>
struct DeviceInputs {
  DeviceTensor<T> q, k, v;
  cuda::AttentionParams params;

  DeviceInputs(const Problem& p, const Inputs& x)
      : q(p, p.H, p.T, x.q), k(p, p.H_kv, p.S, x.k), v(p, p.H_kv, p.S, x.v) {
    params = {.q = q.buffer.data(),
              .k = k.buffer.data(),
              .v = v.buffer.data(),
              .q_strides = q.strides,
              .k_strides = k.strides,
              .v_strides = v.strides,
              .B = p.B,
              .H = p.H,
              .H_kv = p.H_kv,
              .T = p.T,
              .S = p.S,
              .D = p.D,
              .left = p.left,
              .right = p.right,
              .scale = static_cast<float>(p.scale()),
              .seed = p.seed,
              .dropout_threshold = dropout_threshold(p.dropout),
              .keep_scale = static_cast<float>(1 / (1 - p.dropout)),
              .heads_per_section = 2};
  }
};

}  // namespace nanoflex::simt
