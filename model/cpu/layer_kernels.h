// What surrounds the products of a layer, row by row. Plain pointers and sizes: see
// attention/cpu/problem.h.
#pragma once

#include <cstdint>

namespace nanoflex::cpu {

/// Rows of C elements, one behind the other. Statistics are fp32.
struct NormRows {
  int64_t C;
  float epsilon;
  /// Of rotated rows, [positions, C / 2]: row i stands at position i / heads % positions. Null:
  /// rows are not rotated.
  const float *cos = nullptr, *sin = nullptr;
  int64_t heads = 1, positions = 1;
};

/// For inputs of one dtype; void is that dtype.
struct LayerKernels {
  /// y = u scale, scale = 1 / sqrt(mean(u^2) + epsilon), where u is x, rotated if asked for. Of
  /// rows begin .. end; scale: [rows].
  void (*norm)(const NormRows&, const void* x, void* y, float* scale, int64_t begin, int64_t end);
  /// dx from dy.
  void (*norm_backward)(const NormRows&, const void* y, const float* scale, const void* dy,
                        void* dx, int64_t begin, int64_t end);
  /// y = max(x, 0)^2 of `count` elements; dx = 2 max(x, 0) dy.
  void (*relu_squared)(const void* x, void* y, int64_t count);
  void (*relu_squared_backward)(const void* x, const void* dy, void* dx, int64_t count);
  /// y = cap tanh(x / cap), fp32.
  void (*soft_cap)(const void* x, float* y, float cap, int64_t count);
};

}  // namespace nanoflex::cpu
