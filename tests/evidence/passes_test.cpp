#include "evidence/passes.h"

#include <gtest/gtest.h>

#include <limits>

#include "attention/flex/masks.h"
#include "trainer/memory.h"

namespace nanoflex {
namespace {

TEST(Passes, WhatTheMemoryDoesNotHoldAfterAllIsLeftOutWithTheReasonAndTheRestMeasured) {
  track_cpu_memory();
  const PassTensors x = random_tensors({1, 1, 4096, 16}, at::kFloat, at::Device(at::kCPU));
  std::vector<Variant> variants;
  for (const char* backend : {"vanilla", "flash"}) {
    variants.push_back({backend, backend, {.mask = flex::causal()}});
  }
  std::vector<std::string> dropped;
  // For a T x S tensor in fp32 there is no room.
  limit_tensor_bytes(live_tensor_bytes(at::Device(at::kCPU)) + 100'000'000);
  const auto measured = measure_pass("step", x, variants, {.repeat = 1, .shortest_ms = 0},
                                     [&](const Variant& variant, const std::string& reason) {
                                       dropped.push_back(variant.name + " " + reason);
                                     });
  limit_tensor_bytes(std::numeric_limits<int64_t>::max());
  ASSERT_EQ(dropped.size(), 1);
  EXPECT_EQ(dropped[0].rfind("vanilla does not fit: out of memory: ", 0), 0) << dropped[0];
  ASSERT_EQ(variants.size(), 1);
  EXPECT_EQ(variants[0].name, "flash");
  ASSERT_EQ(measured.variants.size(), 1);
  EXPECT_GT(measured.variants[0].median_ms, 0);
  EXPECT_GT(measured.gemm.median_ms, 0);
}

}  // namespace
}  // namespace nanoflex
