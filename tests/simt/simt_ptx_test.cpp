// The matrix instructions do what the PTX manual says, and fault where it says nothing.
#include <gtest/gtest.h>

#include "tests/simt/ptx.h"
#include "tests/simt/simt_testing.h"

namespace nanoflex::cuda {
namespace {

using simt::Access;
using simt::Buffer;
using simt::expect_fault;
using simt::expect_mention;
using simt::fault_of;
using simt::random_numbers;
using simt::round_to;
using simt::to_float;

constexpr int kM = 32, kN = 16, kK = 48;

/// As a tf32 operand: ten bits of mantissa.
float to_float(float value) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) & ~0x1FFFu);
}

template <typename T>
std::vector<T> round_all(const std::vector<float>& values) {
  std::vector<T> result;
  for (float value : values) result.push_back(round_to<T>(value));
  return result;
}

/// c [kM, kN] = a [kM, kK] b [kK, kN], b given as [kN, kK] unless kTransposed; one warp for 16
/// rows.
template <typename T, bool kTransposed>
__global__ void gemm(const T* a, const T* b, float* c) {
  __shared__ __align__(16) T a_tile[kM][kK], b_tile[kN * kK];
  for (int i = threadIdx.x * 8; i < kM * kK; i += blockDim.x * 8) {
    cp_async_16(&a_tile[0][0] + i, a + i, 16);
  }
  for (int i = threadIdx.x * 8; i < kN * kK; i += blockDim.x * 8)
    cp_async_16(b_tile + i, b + i, 16);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();

  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16;
  float sums[2][4] = {};
  for (int k = 0; k < kK; k += 16) {
    uint32_t left[4], both[4];
    ldmatrix_x4(left, &a_tile[row + lane % 16][k + lane / 16 * 8]);
    if (kTransposed) {
      ldmatrix_x4_trans(both, b_tile + (k + lane % 16) * kN + lane / 16 * 8);
    } else {
      ldmatrix_x4(both, b_tile + (lane / 16 * 8 + lane % 8) * kK + k + lane / 8 % 2 * 8);
    }
    const uint32_t right[2][2] = {{both[0], both[1]}, {both[2], both[3]}};
    for (int j = 0; j < 2; ++j) mma_16x8x16<T>(sums[j], left, right[j]);
  }
  for (int j = 0; j < 2; ++j) {
    for (int i = 0; i < 4; ++i) {
      c[(row + lane / 4 + i / 2 * 8) * kN + 8 * j + lane % 4 * 2 + i % 2] = sums[j][i];
    }
  }
}

/// The same from registers, without ldmatrix.
__global__ void gemm_tf32(const float* a, const float* b, float* c) {
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16, g = lane / 4, t = lane % 4;
  for (int n = 0; n < kN; n += 8) {
    float sums[4] = {};
    for (int k = 0; k < kK; k += 8) {
      uint32_t left[4], right[2];
      for (int i = 0; i < 4; ++i) {
        left[i] = __float_as_uint(a[(row + g + i % 2 * 8) * kK + k + t + i / 2 * 4]);
      }
      for (int i = 0; i < 2; ++i) right[i] = __float_as_uint(b[(n + g) * kK + k + t + i * 4]);
      mma_16x8x8_tf32(sums, left, right);
    }
    for (int i = 0; i < 4; ++i) c[(row + g + i / 2 * 8) * kN + n + t * 2 + i % 2] = sums[i];
  }
}

template <typename T>
void expect_product(void (*kernel)(const T*, const T*, float*), const std::vector<T>& a,
                    const std::vector<T>& b, bool transposed) {
  Buffer<T> a_memory(a, Access::read), b_memory(b, Access::read);
  Buffer<float> c_memory(kM * kN);
  simt::launch({.grid = {1}, .block = {kM / 16 * 32}}, kernel, a_memory.data(), b_memory.data(),
               c_memory.data());
  const std::vector<float> c = c_memory.values();
  for (int m = 0; m < kM; ++m) {
    for (int n = 0; n < kN; ++n) {
      double sum = 0, magnitude = 0;
      for (int k = 0; k < kK; ++k) {
        const double product = static_cast<double>(to_float(a[m * kK + k])) *
                               to_float(b[transposed ? k * kN + n : n * kK + k]);
        sum += product;
        magnitude += std::abs(product);
      }
      EXPECT_TRUE(std::abs(c[m * kN + n] - sum) <= kK * 0x1p-24 * magnitude) << m << " " << n;
    }
  }
}

TEST(Mma, ProductThroughLdmatrixIsTheMatrixProduct) {
  const std::vector<float> a = random_numbers(kM * kK, 1), b = random_numbers(kK * kN, 2);
  using B = __nv_bfloat16;
  using H = __half;
  expect_product<B>(&gemm<B, false>, round_all<B>(a), round_all<B>(b), false);
  expect_product<B>(&gemm<B, true>, round_all<B>(a), round_all<B>(b), true);
  expect_product<H>(&gemm<H, false>, round_all<H>(a), round_all<H>(b), false);
  expect_product<H>(&gemm<H, true>, round_all<H>(a), round_all<H>(b), true);
  expect_product<float>(&gemm_tf32, a, b, false);
}

__global__ void mma_by_some_lanes(int lanes) {
  float c[4] = {};
  const uint32_t a[4] = {}, b[2] = {};
  if (static_cast<int>(threadIdx.x) < lanes) {
    mma_16x8x16<__half>(c, a, b);  // line: mma
  }
}

TEST(Mma, AllLanesMustCome) {
  const auto run = [](int lanes) {
    return fault_of([&] { simt::launch({.grid = {1}, .block = {64}}, &mma_by_some_lanes, lanes); });
  };
  EXPECT_EQ(run(64), "");
  EXPECT_EQ(run(32), "");
  expect_fault(run(63), "mma", "waits at mma for thread (63, 0, 0), which has exited");
}

__global__ void load_matrix(const uint32_t* global, int stride, int written) {
  __shared__ __align__(16) unsigned char tile[1024];
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 32 && lane < written; ++i) tile[lane * 32 + i] = 1;
  __syncthreads();
  uint32_t r[4];
  const void* row = tile + lane * stride;
  if (stride == 0) row = global;
  ldmatrix_x4(r, row);  // line: ldmatrix
}

TEST(Ldmatrix, ChecksItsRows) {
  Buffer<uint32_t> global(std::vector<uint32_t>(4));
  const auto run = [&](int stride, int written) {
    return fault_of([&] {
      simt::launch({.grid = {1}, .block = {32}}, &load_matrix, global.data(), stride, written);
    });
  };
  EXPECT_EQ(run(32, 32), "");
  expect_fault(run(24, 32), "ldmatrix", "multiple of 16 bytes, is 8 past one");
  expect_fault(run(0, 32), "ldmatrix", "not in shared memory");
  expect_fault(run(32, 31), "ldmatrix", "no thread has written");
  EXPECT_NE(run(48, 32), "");  // past the end of the tile
}

template <bool kSync>
__global__ void store_and_load_matrix() {
  __shared__ __align__(16) uint32_t tile[128];
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 4; ++i) tile[threadIdx.x * 4 + i] = 1;  // line: stores row
    uint32_t r[4];
    if (kSync) __syncwarp();
    ldmatrix_x4(r, tile + threadIdx.x * 4);  // line: loads rows
    __syncwarp();
  }
}

TEST(Ldmatrix, ReadsOtherLanesRowsOnlyAfterSyncwarp) {
  const auto run = [](auto kernel) {
    return fault_of([&] { simt::launch({.grid = {1}, .block = {32}}, kernel); });
  };
  EXPECT_EQ(run(&store_and_load_matrix<true>), "");
  const std::string message = run(&store_and_load_matrix<false>);
  expect_fault(message, "loads rows", "race");
  expect_mention(message, "stores row");
}

template <bool kSync>
__global__ void load_and_overwrite_matrix() {
  __shared__ __align__(16) uint32_t tile[128];
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 4; ++i) tile[lane * 4 + i] = 1;
  __syncwarp();
  uint32_t r[4];
  ldmatrix_x4(r, tile + lane * 4);  // line: loads own elements
  if (kSync) __syncwarp();
  for (int i = 0; i < 4; ++i) tile[i * 32 + lane] = r[i];  // line: overwrites them
}

TEST(Ldmatrix, AlsoReadsForTheLaneThatGivesTheAddress) {
  const auto run = [](auto kernel) {
    return fault_of([&] { simt::launch({.grid = {1}, .block = {32}}, kernel); });
  };
  EXPECT_EQ(run(&load_and_overwrite_matrix<true>), "");
  const std::string message = run(&load_and_overwrite_matrix<false>);
  expect_fault(message, "overwrites them", "race");
  expect_mention(message, "loads own elements");
}

}  // namespace
}  // namespace nanoflex::cuda
