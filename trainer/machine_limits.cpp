#include "trainer/machine_limits.h"

#include <algorithm>
#include <chrono>
#include <functional>

#include "trainer/machine.h"
#include "trainer/memory.h"

namespace nanoflex {
namespace {

constexpr int kTries = 3;
constexpr int64_t kSize = 2048, kBytes = 64'000'000;

double shortest_seconds(at::Device device, const std::function<void()>& work) {
  using Clock = std::chrono::steady_clock;
  work();
  double shortest = 1e30;
  for (int i = 0; i < kTries; ++i) {
    synchronize(device);
    const Clock::time_point begin = Clock::now();
    work();
    synchronize(device);
    shortest = std::min(shortest, std::chrono::duration<double>(Clock::now() - begin).count());
  }
  return shortest;
}

}  // namespace

MachineLimits measure_limits(at::Device device, at::ScalarType dtype) {
  const auto options = at::TensorOptions().device(device);
  // Where LibTorch computes products of bf16 one number at a time they are no limit.
  const bool emulated = dtype == at::kBFloat16 && !multiplies_bfloat16_fast(device);
  const at::Tensor a = at::ones({kSize, kSize}, options.dtype(emulated ? at::kFloat : dtype));
  at::Tensor product = at::empty_like(a);
  const at::Tensor from = at::zeros({kBytes}, options.dtype(at::kByte));
  const at::Tensor to = at::empty_like(from);
  const double multiplying = shortest_seconds(device, [&] { at::mm_out(product, a, a); });
  const double copying = shortest_seconds(device, [&] { to.copy_(from); });
  return {2.0 * kSize * kSize * kSize / multiplying, 2.0 * kBytes / copying};
}

}  // namespace nanoflex
