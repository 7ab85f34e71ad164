// Asynchronous copies arrive at the wait that covers them, and for one thread alone.
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

constexpr int kTiles = 5, kWidth = 128;  // floats a tile

enum class Mistake { none, no_wait, waits_for_too_few, no_barrier_after, no_barrier_before };
__device__ void start_copy(float* tile, const float* in, int i) {
  const unsigned first = threadIdx.x * 4;
  if (i < kTiles) cp_async_16(tile + first, in + i * kWidth + first, 16);  // line: starts copy
  cp_async_commit();
}

/// Sums tiles element by element, each tile read by another thread than the one that copied it.
template <Mistake kMistake>
__global__ void sum_tiles(const float* in, float* out) {
  __shared__ __align__(16) float tile[2][kWidth];
  float sum[4] = {};
  start_copy(tile[0], in, 0);
  for (int i = 0; i < kTiles; ++i) {
    start_copy(tile[(i + 1) % 2], in, i + 1);
    if (kMistake == Mistake::waits_for_too_few) cp_async_wait<2>();
    if (kMistake != Mistake::waits_for_too_few && kMistake != Mistake::no_wait) cp_async_wait<1>();
    if (kMistake != Mistake::no_barrier_after) __syncthreads();
    const int first = (31 - static_cast<int>(threadIdx.x)) * 4;
    for (int j = 0; j < 4; ++j) {
      sum[j] += tile[i % 2][first + j];  // line: uses tile
    }
    if (kMistake != Mistake::no_barrier_before) __syncthreads();
  }
  for (int j = 0; j < 4; ++j) out[(31 - threadIdx.x) * 4 + j] = sum[j];
}

template <Mistake kMistake>
std::string fault_of_sum(Buffer<float>& out) {
  Buffer<float> in(random_numbers(kTiles * kWidth, 3), Access::read);
  return fault_of([&] {
    simt::launch({.grid = {1}, .block = {32}}, &sum_tiles<kMistake>, in.data(), out.data());
  });
}

TEST(CpAsync, DoubleBufferingAddsUp) {
  Buffer<float> out(kWidth);
  ASSERT_EQ(fault_of_sum<Mistake::none>(out), "");
  const std::vector<float> in = random_numbers(kTiles * kWidth, 3), sums = out.values();
  for (int i = 0; i < kWidth; ++i) {
    float sum = 0;
    for (int tile = 0; tile < kTiles; ++tile) sum += in[tile * kWidth + i];
    EXPECT_EQ(sums[i], sum);
  }
}

TEST(CpAsync, DataArriveOnlyAtTheWaitThatCoversThem) {
  Buffer<float> out(kWidth);
  for (const std::string& message :
       {fault_of_sum<Mistake::no_wait>(out), fault_of_sum<Mistake::waits_for_too_few>(out)}) {
    expect_fault(message, "uses tile", "cp.async in flight");
    expect_mention(message, "starts copy");
  }
}

TEST(CpAsync, TilesAreReusedOnlyAfterABarrier) {
  Buffer<float> out(kWidth);
  expect_fault(fault_of_sum<Mistake::no_barrier_after>(out), "uses tile", "no thread has written");
  const std::string message = fault_of_sum<Mistake::no_barrier_before>(out);
  expect_fault(message, "uses tile", "cp.async in flight");
  expect_mention(message, "starts copy");
}

template <bool kBarrier>
__global__ void hand_over(const float* in, float* out) {
  __shared__ __align__(16) float tile[4];
  if (threadIdx.x == 0) cp_async_16(tile, in, 16);  // line: copies for other
  cp_async_commit();
  cp_async_wait<0>();
  if (kBarrier) __syncwarp();
  if (threadIdx.x == 1) out[0] = tile[0];  // line: reads other's copy
}

TEST(CpAsync, WaitingOrdersNoOtherThread) {
  Buffer<float> in(std::vector<float>(4, 5), Access::read), out(1);
  const auto run = [&](auto kernel) {
    return fault_of(
        [&] { simt::launch({.grid = {1}, .block = {32}}, kernel, in.data(), out.data()); });
  };
  EXPECT_EQ(run(&hand_over<true>), "");
  EXPECT_EQ(out.values()[0], 5);
  const std::string message = run(&hand_over<false>);
  expect_fault(message, "reads other's copy", "race");
  expect_mention(message, "copies for other");
}

__global__ void copy_part(const unsigned char* in, unsigned char* out, int bytes, int to,
                          int from) {
  __shared__ __align__(16) unsigned char chunk[32];
  cp_async_wait<0>();
  for (unsigned char& byte : chunk) byte = 7;
  cp_async_16(chunk + to, in + from, bytes);  // line: copies part
  cp_async_commit();
  cp_async_wait<0>();
  for (int i = 0; i < 16; ++i) out[i] = chunk[i];
}

TEST(CpAsync, CopiesAPartAndZeroesTheRest) {
  Buffer<unsigned char> in(std::vector<unsigned char>(20, 1), Access::read), out(16);
  const auto run = [&](int bytes, int to, int from) {
    return fault_of([&] {
      simt::launch({.grid = {1}, .block = {1}}, &copy_part, in.data(), out.data(), bytes, to, from);
    });
  };
  for (int bytes : {0, 2, 16}) {
    ASSERT_EQ(run(bytes, 0, 0), "");
    for (int i = 0; i < 16; ++i) EXPECT_EQ(out.values()[i], i < bytes);
  }
  EXPECT_EQ(run(4, 0, 16), "");
  EXPECT_EQ(run(0, 0, 1 << 20), "");  // nothing is read
  expect_fault(run(16, 0, 16), "copies part", "out of bounds");
  expect_fault(run(16, 8, 0), "copies part", "the shared address must be a multiple of 16");
  expect_fault(run(16, 0, 4), "copies part", "the global address must be a multiple of 16");
  expect_fault(run(17, 0, 0), "copies part", "0 to 16 bytes, not 17");
}

template <bool kCommit>
__global__ void copy_and_exit(const float* in) {
  __shared__ __align__(16) float tile[4];
  cp_async_16(tile, in, 16);  // line: copies too late
  if (kCommit) cp_async_commit();
}

TEST(CpAsync, ArrivesBeforeItsThreadExits) {
  Buffer<float> in(std::vector<float>(4), Access::read);
  for (auto kernel : {&copy_and_exit<false>, &copy_and_exit<true>}) {
    const std::string message =
        fault_of([&] { simt::launch({.grid = {1}, .block = {1}}, kernel, in.data()); });
    expect_fault(message, "copies too late", "in flight when its thread exits");
  }
}

}  // namespace
}  // namespace nanoflex::cuda
