// The emulator reports what a GPU leaves undefined, with the line, and lets right programs pass.
// Every kernel here is launched with blocks of 64 threads unless a test says otherwise.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/simt/ptx.h"
#include "tests/simt/simt_testing.h"

namespace nanoflex::cuda {
namespace {

using simt::Access;
using simt::Buffer;
using simt::expect_fault;
using simt::expect_mention;
using simt::fault_of;

constexpr int kThreads = 64;
constexpr unsigned kWarp = 0xFFFFFFFFu;

template <typename... Parameters, typename... Arguments>
std::string fault_of_kernel(void (*kernel)(Parameters...), Arguments... arguments) {
  return fault_of([&] {
    simt::launch({.grid = {1}, .block = {kThreads}, .shared_bytes = 2048}, kernel, arguments...);
  });
}

// --- races -------------------------------------------------------------------------------------

template <bool kBarrier>
__global__ void reverse(float* out) {
  __shared__ float tile[kThreads];
  for (int round = 0; round < 3; ++round) {
    tile[threadIdx.x] = static_cast<float>(threadIdx.x + round);  // line: reverse writes
    __syncthreads();
    out[threadIdx.x] = tile[kThreads - 1 - threadIdx.x];  // line: reverse reads
    if (kBarrier) __syncthreads();
  }
}

TEST(Race, MissingBarrierIsReportedWithBothLines) {
  Buffer<float> out(kThreads);
  const std::string message = fault_of_kernel(&reverse<false>, out.data());
  expect_fault(message, "reverse reads", "race: ");
  EXPECT_NE(message.find("wrote at "), std::string::npos) << message;
  expect_mention(message, "reverse writes");
  EXPECT_NE(message.find("tile"), std::string::npos) << message;
}

TEST(Race, BarriersOrderTheBlock) {
  Buffer<float> out(kThreads);
  EXPECT_EQ(fault_of_kernel(&reverse<true>, out.data()), "");
  EXPECT_EQ(out.values()[0], kThreads - 1 + 2);
}

constexpr int kNoneOrders = 0, kSyncwarpOrders = 1, kShuffleOrders = 2, kHalfSyncwarps = 3;
template <int kOrder, int kDistance>
__global__ void neighbour(int* out) {
  __shared__ int tile[kThreads];
  const int i = static_cast<int>(threadIdx.x), half = i / 16 % 2;
  tile[i] = 0;
  __syncthreads();
  tile[i] = i;
  int sum = 0;
  if (kOrder == kSyncwarpOrders) __syncwarp();
  if (kOrder == kShuffleOrders) sum = __shfl_xor_sync(kWarp, 0, 1);
  if (kOrder == kHalfSyncwarps) __syncwarp(half ? 0xFFFF0000u : 0x0000FFFFu);
  sum += tile[i ^ kDistance];  // line: neighbour reads
  out[i] = sum;
}

TEST(Race, SyncwarpOrdersItsLanesAndNoOthers) {
  Buffer<int> out(kThreads);
  EXPECT_EQ(fault_of_kernel(&neighbour<kSyncwarpOrders, 16>, out.data()), "");
  EXPECT_EQ(out.values()[3], 19);
  EXPECT_EQ(fault_of_kernel(&neighbour<kHalfSyncwarps, 8>, out.data()), "");
  EXPECT_NE(fault_of_kernel(&neighbour<kSyncwarpOrders, 32>, out.data()).find("race"),
            std::string::npos);
  EXPECT_NE(fault_of_kernel(&neighbour<kHalfSyncwarps, 16>, out.data()).find("race"),
            std::string::npos);
  EXPECT_NE(fault_of_kernel(&neighbour<kNoneOrders, 1>, out.data()).find("race"),
            std::string::npos);
}

TEST(Race, ShufflesDoNotOrderMemory) {
  Buffer<int> out(kThreads);
  expect_fault(fault_of_kernel(&neighbour<kShuffleOrders, 1>, out.data()), "neighbour reads",
               "race");
}

template <int kShared, int kStep>
__global__ void write_bytes(unsigned char* out) {
  __shared__ unsigned char tile[kThreads];
  (kShared ? tile : out)[threadIdx.x / kStep] = 1;  // line: same write
}

TEST(Race, IsJudgedByByte) {
  Buffer<unsigned char> out(kThreads);
  EXPECT_EQ(fault_of_kernel(&write_bytes<1, 1>, out.data()), "");
  EXPECT_EQ(fault_of_kernel(&write_bytes<0, 1>, out.data()), "");
  expect_fault(fault_of_kernel(&write_bytes<1, 2>, out.data()), "same write", "race");
  expect_fault(fault_of_kernel(&write_bytes<0, 2>, out.data()), "same write", "race");
}

__global__ void write_as_one_block(int* out) {
  out[threadIdx.x] = 1;  // line: block writes
}

TEST(Race, BlocksOfALaunchAreNotOrderedAndLaunchesAre) {
  Buffer<int> out(kThreads);
  const std::string message = fault_of(
      [&] { simt::launch({.grid = {2}, .block = {kThreads}}, &write_as_one_block, out.data()); });
  expect_fault(message, "block writes", "of another block");
  EXPECT_EQ(fault_of_kernel(&write_as_one_block, out.data()), "");
  EXPECT_EQ(fault_of_kernel(&write_as_one_block, out.data()), "");
}

// --- addresses ---------------------------------------------------------------------------------

__global__ void read_unwritten(float* out, int written) {
  __shared__ float tile[kThreads];
  if (static_cast<int>(threadIdx.x) < written) tile[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];  // line: unwritten read
}

TEST(Memory, UnwrittenSharedMemoryIsNotRead) {
  Buffer<float> out(kThreads);
  EXPECT_EQ(fault_of_kernel(&read_unwritten, out.data(), kThreads), "");
  // What an earlier block or launch left there does not count.
  const std::string message = fault_of_kernel(&read_unwritten, out.data(), kThreads - 1);
  expect_fault(message, "unwritten read", "no thread has written");
  EXPECT_NE(message.find("thread (63, 0, 0) of block (0, 0, 0)"), std::string::npos) << message;
}

__global__ void copy(const float* in, float* out, int offset) {
  out[threadIdx.x] = in[static_cast<int>(threadIdx.x) + offset];  // line: copies
}

TEST(Memory, GlobalBuffersAreBounded) {
  Buffer<float> in(std::vector<float>(kThreads, 2), Access::read), out(kThreads),
      small(kThreads - 1);
  EXPECT_EQ(fault_of_kernel(&copy, in.data(), out.data(), 0), "");
  EXPECT_EQ(out.values(), in.values());
  expect_fault(fault_of_kernel(&copy, in.data(), out.data(), 1), "copies",
               "reads 4 bytes out of bounds");
  expect_fault(fault_of_kernel(&copy, in.data(), out.data(), -1), "copies",
               "reads 4 bytes out of bounds");
  expect_fault(fault_of_kernel(&copy, in.data(), small.data(), 0), "copies",
               "writes 4 bytes out of bounds");
}

TEST(Memory, ReadOnlyUnwrittenAndForeignMemoryIsRefused) {
  Buffer<float> in(std::vector<float>(kThreads, 2), Access::read), out(kThreads),
      unwritten(kThreads);
  expect_fault(fault_of_kernel(&copy, in.data(), in.data(), 0), "copies", "read-only");
  expect_fault(fault_of_kernel(&copy, unwritten.data(), out.data(), 0), "copies",
               "no thread has written");
  EXPECT_TRUE(std::isnan(unwritten.values()[0]));
  std::vector<float> host(kThreads);
  expect_fault(fault_of_kernel(&copy, host.data(), out.data(), 0), "copies", "out of bounds");
}

template <int kWay>
__global__ void write_shared(int i) {
  __shared__ float tile[8];
  if (kWay == 0) tile[i] = 1;  // line: indexes
  float* pointer = tile;
  if (kWay == 1) pointer[i] = 1;                                   // line: points
  if (kWay == 2) reinterpret_cast<float*>(dynamic_shared)[i] = 1;  // line: dynamic
}

TEST(Memory, SharedArraysAreBounded) {
  const auto run = [](auto kernel, int i) {
    return fault_of(
        [&] { simt::launch({.grid = {1}, .block = {1}, .shared_bytes = 32}, kernel, i); });
  };
  for (auto kernel : {&write_shared<0>, &write_shared<1>, &write_shared<2>}) {
    EXPECT_EQ(run(kernel, 7), "");
  }
  expect_fault(run(&write_shared<0>, 8), "indexes", "index 8 out of bounds");
  // Just outside may lie another kernel's array.
  expect_fault(run(&write_shared<1>, 1 << 20), "points", "out of bounds");
  expect_fault(run(&write_shared<2>, 8), "dynamic", "dynamic_shared, which has 32");
}

template <bool kByLdg>
__global__ void copy_vector(const float* in, float* out) {
  const float4* vector = reinterpret_cast<const float4*>(in);
  if (kByLdg) *reinterpret_cast<float4*>(out) = __ldg(vector);  // line: vector by ldg
  if (!kByLdg) *reinterpret_cast<float4*>(out) = *vector;       // line: vector
}

TEST(Memory, VectorsMustBeAligned) {
  Buffer<float> in(std::vector<float>(8, 2), Access::read), out(8);
  const auto run = [&](auto kernel, int offset) {
    return fault_of(
        [&] { simt::launch({.grid = {1}, .block = {1}}, kernel, in.data() + offset, out.data()); });
  };
  const std::string message = "needs a multiple of 16 bytes, the address is 4 past one";
  EXPECT_EQ(run(&copy_vector<false>, 4), "");
  EXPECT_EQ(run(&copy_vector<true>, 4), "");
  expect_fault(run(&copy_vector<false>, 1), "vector", message);
  expect_fault(run(&copy_vector<true>, 1), "vector by ldg", message);
}

// --- who must meet -----------------------------------------------------------------------------

template <bool kExit>
__global__ void diverge(int first) {
  const bool early = static_cast<int>(threadIdx.x) < first;
  if (early) __syncthreads();             // line: first barrier
  if (!early && !kExit) __syncthreads();  // line: second barrier
}

TEST(Barrier, DivergenceNamesBothPlaces) {
  EXPECT_EQ(fault_of_kernel(&diverge<true>, kThreads), "");
  EXPECT_EQ(fault_of_kernel(&diverge<false>, 0), "");
  const std::string exited = fault_of_kernel(&diverge<true>, 32);
  expect_fault(exited, "first barrier", "thread (32, 0, 0), which has exited");
  const std::string elsewhere = fault_of_kernel(&diverge<false>, 32);
  expect_fault(elsewhere, "second barrier", "waits at the __syncthreads of ");
  expect_mention(elsewhere, "first barrier");
}

__global__ void vote_twice(int* out, int voter) {
  const int thread = static_cast<int>(threadIdx.x);
  const int first = __syncthreads_or(thread == voter), second = __syncthreads_or(thread == -1);
  out[thread] = first + 2 * second;
}
__global__ void vote_or_not(bool vote) {
  const bool votes = vote && threadIdx.x > 3;
  votes ? __syncthreads_or(1) : (__syncthreads(), 0);
}

TEST(Barrier, TellsAllThreadsHowTheyVoted) {
  Buffer<int> out(kThreads);
  EXPECT_EQ(fault_of_kernel(&vote_twice, out.data(), kThreads - 1), "");
  EXPECT_EQ(out.values(), std::vector<int>(kThreads, 1));
  EXPECT_EQ(fault_of_kernel(&vote_twice, out.data(), kThreads), "");
  EXPECT_EQ(out.values(), std::vector<int>(kThreads, 0));
}

TEST(Barrier, OneWithAVoteIsNotOneWithout) {
  EXPECT_EQ(fault_of_kernel(&vote_or_not, false), "");
  EXPECT_NE(fault_of_kernel(&vote_or_not, true), "");
}

template <bool kExit>
__global__ void shuffle_partly(int* out, int lanes, unsigned mask) {
  const int lane = static_cast<int>(threadIdx.x);
  if (lane < lanes) {
    out[lane] = __shfl_xor_sync(mask, lane, 1);  // line: shuffles
  }
  if (!kExit) {
    __syncthreads();  // line: other barrier
  }
}

TEST(Collective, EveryLaneOfTheMaskMustCome) {
  Buffer<int> out(kThreads);
  EXPECT_EQ(fault_of_kernel(&shuffle_partly<false>, out.data(), 4, 0xFu), "");
  EXPECT_EQ(out.values()[2], 3);
  expect_fault(fault_of_kernel(&shuffle_partly<true>, out.data(), 4, kWarp), "shuffles",
               "thread (4, 0, 0), which has exited");
  const std::string elsewhere = fault_of_kernel(&shuffle_partly<false>, out.data(), 4, kWarp);
  expect_fault(elsewhere, "shuffles", "which waits at __syncthreads");
  expect_mention(elsewhere, "other barrier");
  expect_fault(fault_of_kernel(&shuffle_partly<true>, out.data(), 4, 0xEu), "shuffles",
               "by a lane that its mask leaves out");
  expect_fault(fault_of_kernel(&shuffle_partly<true>, out.data(), 3, 0x7u), "shuffles",
               "lane 2 shuffles from lane 3");
  const std::string narrow = fault_of([&] {
    simt::launch({.grid = {1}, .block = {16}}, &shuffle_partly<true>, out.data(), 16, kWarp);
  });
  expect_fault(narrow, "shuffles", "lane 16, which the block does not have");
}

TEST(Launch, RefusesWhatNoGpuRuns) {
  const auto launch = [](const simt::LaunchOptions& options) {
    return fault_of([&] { simt::launch(options, &diverge<true>, 0); });
  };
  EXPECT_EQ(launch({.grid = {1}, .block = {1024}, .shared_bytes = 227 << 10}), "");
  EXPECT_NE(launch({.grid = {0}, .block = {32}}).find("at least one block"), std::string::npos);
  EXPECT_NE(launch({.grid = {1}, .block = {1025}}).find("not 1025"), std::string::npos);
  EXPECT_NE(launch({.grid = {1}, .block = {32}, .shared_bytes = 228 << 10}).find("not 233472"),
            std::string::npos);
}

// --- programs that are right -------------------------------------------------------------------

__global__ void sum(const float* in, float* out, int n) {
  __shared__ float partial[kThreads / 32];
  float value = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) value += __ldg(in + i);
  for (int d = 16; d > 0; d /= 2) value += __shfl_xor_sync(kWarp, value, d);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = std::accumulate(partial, partial + kThreads / 32, 0.0f);
}

TEST(Program, ReductionByShuffles) {
  std::vector<float> values(1000);
  std::iota(values.begin(), values.end(), 1.0f);
  Buffer<float> in(values, Access::read), out(3);
  simt::launch({.grid = {3}, .block = {kThreads}}, &sum, in.data(), out.data(), 1000);
  EXPECT_EQ(out.values(), std::vector<float>(3, 500500.0f));
}

__global__ void shuffles(int* out, int width) {
  const int lane = static_cast<int>(threadIdx.x);
  out[lane] = __shfl_down_sync(kWarp, lane, 3, width);
  out[lane + 32] = __shfl_up_sync(kWarp, lane, 3, width);
  out[lane + 64] = __shfl_sync(kWarp, lane, 9, width);
  out[lane + 96] = static_cast<int>(__shfl_xor_sync(kWarp, 1e12 + lane, 5, width) - 1e12);
}

TEST(Program, ShufflesStayInTheirSegment) {
  for (int width : {8, 32}) {
    Buffer<int> out(128);
    simt::launch({.grid = {1}, .block = {32}}, &shuffles, out.data(), width);
    const std::vector<int> values = out.values();
    for (int lane = 0; lane < 32; ++lane) {
      const int first = lane / width * width;
      EXPECT_EQ(values[lane], lane + 3 < first + width ? lane + 3 : lane);
      EXPECT_EQ(values[lane + 32], lane - 3 >= first ? lane - 3 : lane);
      EXPECT_EQ(values[lane + 64], first + 9 % width);
      EXPECT_EQ(values[lane + 96], lane ^ 5);
    }
  }
}

}  // namespace
}  // namespace nanoflex::cuda
