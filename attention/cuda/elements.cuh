// Numbers of the three types that kernels read and write, alone and 16 bytes at a time.
#pragma once

#include "attention/cuda/ptx.cuh"

namespace nanoflex::cuda {

__device__ __forceinline__ uint32_t pack(__nv_bfloat162 pair) {
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}
__device__ __forceinline__ uint32_t pack(__half2 pair) {
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

/// Two numbers rounded to T; the first in the lower half.
template <typename T>
__device__ __forceinline__ uint32_t round_pair(float low, float high);
template <>
__device__ __forceinline__ uint32_t round_pair<__nv_bfloat16>(float low, float high) {
  return pack(__floats2bfloat162_rn(low, high));
}
template <>
__device__ __forceinline__ uint32_t round_pair<__half>(float low, float high) {
  return pack(__floats2half2_rn(low, high));
}

__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(float x) { return x; }

/// The 16 bytes at `source` as fp32.
__device__ __forceinline__ void load_chunk(float (&x)[8], const __nv_bfloat16* source) {
  __nv_bfloat162 pairs[4];
  const uint4 chunk = *reinterpret_cast<const uint4*>(source);
  memcpy(pairs, &chunk, sizeof(chunk));
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __bfloat1622float2(pairs[i]);
    x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
  }
}
__device__ __forceinline__ void load_chunk(float (&x)[8], const __half* source) {
  __half2 pairs[4];
  const uint4 chunk = *reinterpret_cast<const uint4*>(source);
  memcpy(pairs, &chunk, sizeof(chunk));
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __half22float2(pairs[i]);
    x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
  }
}
__device__ __forceinline__ void load_chunk(float (&x)[4], const float* source) {
  const float4 chunk = *reinterpret_cast<const float4*>(source);
  x[0] = chunk.x, x[1] = chunk.y, x[2] = chunk.z, x[3] = chunk.w;
}

/// The reverse: rounded.
template <typename T>
__device__ __forceinline__ void store_chunk(T* target, const float (&x)[8]) {
  uint4 chunk;
  chunk.x = round_pair<T>(x[0], x[1]), chunk.y = round_pair<T>(x[2], x[3]);
  chunk.z = round_pair<T>(x[4], x[5]), chunk.w = round_pair<T>(x[6], x[7]);
  *reinterpret_cast<uint4*>(target) = chunk;
}
__device__ __forceinline__ void store_chunk(float* target, const float (&x)[4]) {
  *reinterpret_cast<float4*>(target) = make_float4(x[0], x[1], x[2], x[3]);
}

__device__ __forceinline__ void store_rounded(__nv_bfloat16* target, float x) {
  *target = __float2bfloat16_rn(x);
}
__device__ __forceinline__ void store_rounded(__half* target, float x) {
  *target = __float2half_rn(x);
}
__device__ __forceinline__ void store_rounded(float* target, float x) { *target = x; }

}  // namespace nanoflex::cuda
