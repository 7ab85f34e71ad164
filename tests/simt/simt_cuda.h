// The CUDA C++ that kernels may use beside the functions of ptx.h, on the CPU: qualifiers, indices,
// vector types, barriers, shuffles and math. Semantics: CUDA C++ Programming Guide.
//
// A barrier or a shuffle whose threads do not all arrive is a fault that names the line.
#pragma once

#include <math.h>
#include <string.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "tests/simt/simt_half.h"

// NOLINTBEGIN(bugprone-reserved-identifier): the names are CUDA's.

// Shared memory is the memory of the host's thread: every __shared__ array gets an address that the
// checks recognise, whether it is static or `extern __shared__ unsigned char dynamic_shared[]`.
#define __shared__ thread_local
#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

namespace nanoflex::cuda {
/// A kernel's dynamic shared memory, as long as its launch said.
extern __shared__ __align__(1024) unsigned char dynamic_shared[];
}  // namespace nanoflex::cuda

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline __nv_bfloat162 __float22bfloat162_rn(float2 v) { return __floats2bfloat162_rn(v.x, v.y); }
inline __half2 __float22half2_rn(float2 v) { return __floats2half2_rn(v.x, v.y); }
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {__low2float(v), __high2float(v)}; }
inline float2 __half22float2(__half2 v) { return {__low2float(v), __high2float(v)}; }

// What the running thread is; set whenever the scheduler changes threads.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace nanoflex::simt {
/// A line of a kernel's source. Of std::source_location's kind, which clang 14 lacks.
struct Location {
  const char* file = "";
  int line = 0;
  static constexpr Location current(const char* file = __builtin_FILE(),
                                    int line = __builtin_LINE()) {
    return {file, line};
  }
};
/// Exchanges 32-bit words: `source_lane` says whose word this lane gets; past the end of the lane's
/// segment of `width` lanes: its own.
uint32_t shuffle(const char* name, uint32_t mask, uint32_t word, int source_lane, int width,
                 const Location& where);
uint32_t ballot(const char* name, uint32_t mask, bool vote, const Location& where);

template <typename T>
T shuffle_value(const char* name, uint32_t mask, T value, int source_lane, int width,
                const Location& where) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 32 or 64 bits");
  if constexpr (sizeof(T) == 4) {
    const uint32_t word = std::bit_cast<uint32_t>(value);
    return std::bit_cast<T>(shuffle(name, mask, word, source_lane, width, where));
  } else {
    const uint64_t word = std::bit_cast<uint64_t>(value);
    const uint32_t low = shuffle(name, mask, word, source_lane, width, where);
    const uint64_t high = shuffle(name, mask, word >> 32, source_lane, width, where);
    return std::bit_cast<T>(high << 32 | low);
  }
}
int lane();  // of the running thread, 0..31
}  // namespace nanoflex::simt

void __syncthreads(const nanoflex::simt::Location& where = nanoflex::simt::Location::current());
/// And tells every thread whether any thread's predicate was not 0.
int __syncthreads_or(int predicate,
                     const nanoflex::simt::Location& where = nanoflex::simt::Location::current());
void __syncwarp(uint32_t mask = 0xFFFFFFFFu,
                const nanoflex::simt::Location& where = nanoflex::simt::Location::current());

template <typename T>
T __shfl_sync(uint32_t mask, T value, int lane, int width = 32,
              const nanoflex::simt::Location& where = nanoflex::simt::Location::current()) {
  const int first = nanoflex::simt::lane() & ~(width - 1);
  return nanoflex::simt::shuffle_value("__shfl_sync", mask, value, first + (lane & (width - 1)),
                                       width, where);
}
template <typename T>
T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, int width = 32,
                  const nanoflex::simt::Location& where = nanoflex::simt::Location::current()) {
  const int source = nanoflex::simt::lane() ^ lane_mask;
  return nanoflex::simt::shuffle_value("__shfl_xor_sync", mask, value, source, width, where);
}
template <typename T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                   const nanoflex::simt::Location& where = nanoflex::simt::Location::current()) {
  const int source = nanoflex::simt::lane() + static_cast<int>(delta);
  return nanoflex::simt::shuffle_value("__shfl_down_sync", mask, value, source, width, where);
}
template <typename T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                 const nanoflex::simt::Location& where = nanoflex::simt::Location::current()) {
  const int lane = nanoflex::simt::lane(), source = lane - static_cast<int>(delta);
  const bool inside = source >= (lane & ~(width - 1));
  return nanoflex::simt::shuffle_value("__shfl_up_sync", mask, value, inside ? source : lane, width,
                                       where);
}
inline uint32_t __ballot_sync(
    uint32_t mask, int vote,
    const nanoflex::simt::Location& where = nanoflex::simt::Location::current()) {
  return nanoflex::simt::ballot("__ballot_sync", mask, vote != 0, where);
}
inline int __any_sync(uint32_t mask, int vote,
                      const nanoflex::simt::Location& where = nanoflex::simt::Location::current()) {
  return nanoflex::simt::ballot("__any_sync", mask, vote != 0, where) != 0;
}
inline int __all_sync(uint32_t mask, int vote,
                      const nanoflex::simt::Location& where = nanoflex::simt::Location::current()) {
  return nanoflex::simt::ballot("__all_sync", mask, vote != 0, where) == mask;
}

template <typename T>
__forceinline__ T __ldg(const T* address) {
  return *address;  // checked like any read
}

// Of a number and a NaN, the number, as on a GPU.
template <typename A, typename B>
std::common_type_t<A, B> min(A a, B b) {
  const std::common_type_t<A, B> left = a, right = b;
  if constexpr (std::is_floating_point_v<std::common_type_t<A, B>>) return std::fmin(left, right);
  return right < left ? right : left;
}
template <typename A, typename B>
std::common_type_t<A, B> max(A a, B b) {
  const std::common_type_t<A, B> left = a, right = b;
  if constexpr (std::is_floating_point_v<std::common_type_t<A, B>>) return std::fmax(left, right);
  return left < right ? right : left;
}

// glibc declares, and does not define, functions of these four names.
extern "C" {
inline float __expf(float x) noexcept { return expf(x); }
inline float __exp2f(float x) noexcept { return exp2f(x); }
inline float __logf(float x) noexcept { return logf(x); }
inline float __log2f(float x) noexcept { return log2f(x); }
}
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __saturatef(float x) { return std::fmin(std::fmax(x, 0.0f), 1.0f); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline int __ffs(int bits) {
  return bits == 0 ? 0 : std::countr_zero(static_cast<unsigned>(bits)) + 1;
}
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __clz(int bits) { return std::countl_zero(static_cast<unsigned>(bits)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return uint64_t{a} * b >> 32; }

// NOLINTEND(bugprone-reserved-identifier)
