// The operators that programs made of flex expressions are written in (flex/cuda_source.cpp). Their
// meaning is that of flex/evaluate.cpp. Floats are rounded after each one, so that a score has the
// same bits wherever it is computed.
#pragma once

#include "attention/cuda/params.h"
#include "attention/cuda/ptx.cuh"

namespace nanoflex::cuda {

__device__ __forceinline__ float number(int word) { return __int_as_float(word); }
__device__ __forceinline__ float to_number(int x) { return static_cast<float>(x); }

__device__ __forceinline__ int load_integer(const void* tensor, int index) {
  return __ldg(static_cast<const int*>(tensor) + index);
}
__device__ __forceinline__ float load_number(const void* tensor, int index) {
  return __ldg(static_cast<const float*>(tensor) + index);
}

__device__ __forceinline__ int negate(int x) { return -x; }
__device__ __forceinline__ float negate(float x) { return -x; }
__device__ __forceinline__ int add(int a, int b) { return a + b; }
__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ int subtract(int a, int b) { return a - b; }
__device__ __forceinline__ float subtract(float a, float b) { return __fadd_rn(a, -b); }
__device__ __forceinline__ int multiply(int a, int b) { return a * b; }
__device__ __forceinline__ float multiply(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ int absolute(int x) { return x < 0 ? -x : x; }
__device__ __forceinline__ float absolute(float x) { return fabsf(x); }

/// To the floor; by zero 0.
__device__ __forceinline__ int divide(int a, int b) {
  if (b == 0) return 0;
  const int cut = a / b, rest = a - cut * b;
  return rest != 0 && (rest < 0) != (b < 0) ? cut - 1 : cut;
}
__device__ __forceinline__ float divide(float a, float b) { return a / b; }

/// With the divisor's sign; of integers by zero 0.
__device__ __forceinline__ int remainder(int a, int b) {
  if (b == 0) return 0;
  const int rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}
__device__ __forceinline__ float remainder(float a, float b) {
  const float rest = fmodf(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? __fadd_rn(rest, b) : rest;
}

/// NaN if either is.
__device__ __forceinline__ int minimum(int a, int b) { return a < b ? a : b; }
__device__ __forceinline__ float minimum(float a, float b) { return a < b || a != a ? a : b; }
__device__ __forceinline__ int maximum(int a, int b) { return a > b ? a : b; }
__device__ __forceinline__ float maximum(float a, float b) { return a > b || a != a ? a : b; }

/// Stops at +-2^24; of NaN 0.
__device__ __forceinline__ int floor_of(float x) {
  constexpr float kMost = 16777216;
  const float whole = floorf(x);
  if (whole != whole) return 0;
  return static_cast<int>(whole > kMost ? kMost : whole < -kMost ? -kMost : whole);
}
__device__ __forceinline__ float exp_of(float x) { return expf(x); }
__device__ __forceinline__ float log_of(float x) { return logf(x); }
__device__ __forceinline__ float sqrt_of(float x) { return sqrtf(x); }
__device__ __forceinline__ float tanh_of(float x) { return tanhf(x); }
__device__ __forceinline__ float sigmoid_of(float x) { return 1 / __fadd_rn(1, expf(-x)); }

}  // namespace nanoflex::cuda
