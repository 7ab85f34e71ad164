// A run that needs more memory than there is says so, and leaves what it had.
#include "trainer/out_of_memory.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <fstream>
#include <limits>
#include <new>

#include "tests/trainer/small_run.h"
#include "trainer/checkpoint.h"
#include "trainer/memory.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;

class MemoryLimit {
 public:
  explicit MemoryLimit(int64_t more) {
    limit_tensor_bytes(live_tensor_bytes(at::Device(at::kCPU)) + more);
  }
  ~MemoryLimit() { limit_tensor_bytes(std::numeric_limits<int64_t>::max()); }
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;
};

TEST(OutOfMemory, AStepThatDoesNotFitSaysWhatToLowerAndLeavesRecordAndCheckpoint) {
  const fs::path run = train(eight_steps(), {"train"}).folder;
  std::string message;
  {
    const MemoryLimit limit(3'000'000);  // for the model, but not for a step on its batch
    message = refusal(run, {"--max-steps", "10"});
  }
  EXPECT_TRUE(has(message, "[train] step 9: out of memory: ")) << message;
  EXPECT_TRUE(has(message, " MB were asked for, ")) << message;
  EXPECT_TRUE(has(message, " MB were free on cpu; lower --device-batch-size, is ")) << message;
  EXPECT_TRUE(has(message, "--sequence-len, is ")) << message;
  EXPECT_TRUE(has(message, "last good checkpoint: " + checkpoint_folder(run, 8).string()))
      << message;
  EXPECT_FALSE(has(message, "\n")) << message;
  EXPECT_EQ(read_json(run / "summary.json").at("status"), "failed");
  EXPECT_EQ(read_json(run / "summary.json").at("error"), message);
  EXPECT_EQ(losses(run).size(), 8);

  resume(run, {"--max-steps", "10"});
  EXPECT_EQ(losses(run).size(), 10);
  EXPECT_FALSE(read_json(run / "summary.json").contains("error"));
}

TEST(OutOfMemory, AModelThatDoesNotFitLeavesNoFolder) {
  Config config = reference_config();
  const MemoryLimit limit(10'000);
  const std::string message = rejection(config);
  EXPECT_TRUE(has(message, "[train] before the first step: out of memory: ")) << message;
  EXPECT_TRUE(has(message, "lower --n-embd, --n-layer, --vocab-size or --batch-size")) << message;
  EXPECT_FALSE(fs::exists(config.runs_dir));
}

// The words of the allocators themselves.
TEST(OutOfMemory, IsToldFromOtherErrors) {
  const auto shortage = [](const std::string& text) {
    return memory_shortage(c10::Error(c10::SourceLocation{"allocate", __FILE__, __LINE__}, text));
  };
  EXPECT_TRUE(
      shortage("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't "
               "allocate memory: you tried to allocate 8 bytes. Error code 12"));
  EXPECT_EQ(shortage("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity "
                     "of 79.10 GiB of which 1.00 GiB is free.\nMore"),
            "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 "
            "GiB of which 1.00 GiB is free.");
  EXPECT_TRUE(memory_shortage(std::bad_alloc()));
  EXPECT_FALSE(shortage("size mismatch, got input (4), mat (4x5), vec (6) in memory"));
  EXPECT_FALSE(memory_shortage(std::runtime_error("out of luck")));
}

// Bytes of this process that are in memory.
int64_t resident_bytes() {
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> pages;
  return pages * 4096;
}

TEST(FreeMemory, CountsWhatFreedTensorsLeft) {
  track_cpu_memory();
  constexpr int64_t kBytes = int64_t{1} << 29;
  const int64_t before = resident_bytes();
  {
    const at::Tensor large = at::ones({kBytes}, at::kByte);
    EXPECT_TRUE(resident_bytes() > before + kBytes / 2);
  }
  EXPECT_TRUE(free_memory_bytes(at::Device(at::kCPU)) > 0);
  EXPECT_TRUE(resident_bytes() < before + kBytes / 2);
}

// Freed tensors leave holes in the heap, in which a larger one has no place: the heap grows past
// what there is, and yet what is in use fits, or does not.
TEST(OutOfMemory, WhatIsInUseMustFitAndNotTheHolesBetween) {
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
  GTEST_SKIP() << "the sanitizer has a heap of its own";
#endif
#endif
  track_cpu_memory();
  constexpr int64_t kMegabyte = 1'000'000;
  const auto tensor = [](int64_t megabytes) {
    return at::empty({megabytes * kMegabyte}, at::kByte);
  };
  at::Tensor hole = tensor(150);
  const at::Tensor behind = tensor(1);
  hole.reset();
  limit_heap_bytes(static_cast<int64_t>(mallinfo2().uordblks) + 200 * kMegabyte);
  at::Tensor first;
  EXPECT_NO_THROW(first = tensor(170));
  EXPECT_THROW(tensor(171), c10::OutOfMemoryError);
  EXPECT_EQ(refused_tensor().bytes, 171 * kMegabyte);
  EXPECT_NEAR(static_cast<double>(refused_tensor().free), 30e6, 2e6);
  first.reset();
  EXPECT_NO_THROW(tensor(171));
  limit_heap_bytes(std::nullopt);
}

}  // namespace
}  // namespace nanoflex
