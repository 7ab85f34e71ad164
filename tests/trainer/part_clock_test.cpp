#include "trainer/part_clock.h"

#include <ATen/ThreadLocalState.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "attention/attention.h"
#include "model/head.h"
#include "model/layers.h"

namespace nanoflex {
namespace {

double seconds_of(const std::function<void()>& body, std::map<std::string, double>& parts) {
  const auto begin = std::chrono::steady_clock::now();
  PartClock clock(at::kCPU);
  body();
  parts = clock.stop();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double sum_of(const std::map<std::string, double>& parts) {
  double sum = 0;
  for (const auto& [name, seconds] : parts) sum += seconds;
  return sum;
}

at::Tensor leaf(at::IntArrayRef sizes) { return at::randn(sizes).requires_grad_(); }

// Plain attention's backward pass is a dozen of LibTorch's own operations, products among them.
TEST(PartClock, CountsABackwardPassWhereItsForwardPassRan) {
  const at::Tensor q = leaf({1, 2, 300, 16});
  std::map<std::string, double> parts;
  const double all = seconds_of(
      [&] { attend(q, q, q, {.mask = flex::causal()}, "vanilla").output.sum().backward(); }, parts);
  EXPECT_EQ(parts.at("other products"), 0);
  EXPECT_EQ(parts.at("head"), 0);
  EXPECT_GT(parts.at("attention"), 0.5 * all);
  EXPECT_TRUE(sum_of(parts) <= all);
  EXPECT_TRUE(sum_of(parts) >= 0.5 * all);
}

// As autograd does for a GPU.
TEST(PartClock, CountsWhatAnotherThreadDoesForThisOne) {
  const at::Tensor x = at::randn({300, 300});
  std::map<std::string, double> parts;
  seconds_of(
      [&] {
        const at::ThreadLocalState state;
        std::thread([&] {
          const at::ThreadLocalStateGuard guard(state);
          for (int i = 0; i < 20; ++i) at::mm(x, x);
        }).join();
      },
      parts);
  EXPECT_GT(parts.at("other products"), 0);
}

TEST(PartClock, TellsTheHeadFromOtherProducts) {
  const at::Tensor x = leaf({64, 32}), weight = leaf({32, 32}), head = leaf({500, 32});
  std::map<std::string, double> parts;
  seconds_of(
      [&] {
        head_loss(project(x, weight), head, at::zeros({64}, at::kLong), {.count = 64}).backward();
      },
      parts);
  EXPECT_GT(parts.at("head"), 0);
  EXPECT_GT(parts.at("other products"), 0);
  EXPECT_EQ(parts.at("attention"), 0);
  EXPECT_EQ(parts.at("optimizer"), 0);
}

}  // namespace
}  // namespace nanoflex
