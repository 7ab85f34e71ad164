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

template <class Body>
double seconds_of(const Body& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

struct Timed {
  std::map<std::string, double> parts;
  double inside = 0, outside = 0;  // seconds that the clock's must lie between
};

Timed timed(const std::function<void()>& body) {
  Timed result;
  result.outside = seconds_of([&] {
    PartClock clock(at::kCPU);
    result.inside = seconds_of(body);
    result.parts = clock.stop();
  });
  return result;
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
  const auto [parts, inside, outside] =
      timed([&] { attend(q, q, q, {.mask = flex::causal()}, "vanilla").output.sum().backward(); });
  EXPECT_EQ(parts.at("other products"), 0);
  EXPECT_EQ(parts.at("head"), 0);
  EXPECT_GT(parts.at("attention"), 0);
  EXPECT_LE(sum_of(parts), outside);
  EXPECT_GE(sum_of(parts), inside);
}

// As autograd does for a GPU.
TEST(PartClock, CountsWhatAnotherThreadDoesForThisOne) {
  const at::Tensor x = at::randn({300, 300});
  const auto parts = timed([&] {
                       const at::ThreadLocalState state;
                       std::thread([&] {
                         const at::ThreadLocalStateGuard guard(state);
                         for (int i = 0; i < 20; ++i) at::mm(x, x);
                       }).join();
                     }).parts;
  EXPECT_GT(parts.at("other products"), 0);
}

TEST(PartClock, TellsTheHeadFromOtherProducts) {
  const at::Tensor x = leaf({64, 32}), weight = leaf({32, 32}), head = leaf({500, 32});
  const auto parts =
      timed([&] {
        head_loss(project(x, weight), head, at::zeros({64}, at::kLong), {.count = 64}).backward();
      }).parts;
  EXPECT_GT(parts.at("head"), 0);
  EXPECT_GT(parts.at("other products"), 0);
  EXPECT_EQ(parts.at("attention"), 0);
  EXPECT_EQ(parts.at("optimizer"), 0);
}

}  // namespace
}  // namespace nanoflex
