#include "trainer/machine_limits.h"

#include <algorithm>
#include <chrono>
#include <functional>

#include "trainer/machine.h"
#include "trainer/memory.h"

namespace nanoflex {
namespace {

constexpr int kTries = 3;
// On a GPU work that its caches do not hold, queued so that starting it does not count.
struct Work {
  int64_t side = 2048, bytes = 64'000'000;
  int calls = 1;
};

double shortest_seconds(at::Device device, int calls, const std::function<void()>& work) {
  using Clock = std::chrono::steady_clock;
  work();
  double shortest = 1e30;
  for (int i = 0; i < kTries; ++i) {
    synchronize(device);
    const Clock::time_point begin = Clock::now();
    for (int call = 0; call < calls; ++call) work();
    synchronize(device);
    const std::chrono::duration<double> passed = Clock::now() - begin;
    shortest = std::min(shortest, passed.count() / calls);
  }
  return shortest;
}

}  // namespace

MachineLimits measure_limits(at::Device device, at::ScalarType dtype) {
  const auto options = at::TensorOptions().device(device);
  // Where LibTorch computes products of bf16 one number at a time they are no limit.
  const bool emulated = dtype == at::kBFloat16 && !multiplies_bfloat16_fast(device);
  const Work work = device.is_cuda() ? Work{8192, 256'000'000, 20} : Work{};
  const at::Tensor a =
      varied_numbers({work.side, work.side}, options.dtype(emulated ? at::kFloat : dtype));
  at::Tensor product = at::empty_like(a);
  const at::Tensor from = at::zeros({work.bytes}, options.dtype(at::kByte));
  const at::Tensor to = at::empty_like(from);
  const double multiplying =
      shortest_seconds(device, work.calls, [&] { at::mm_out(product, a, a); });
  const double copying = shortest_seconds(device, work.calls, [&] { to.copy_(from); });
  const auto side = static_cast<double>(work.side);
  return {2 * side * side * side / multiplying, 2.0 * static_cast<double>(work.bytes) / copying};
}

at::Tensor varied_numbers(at::IntArrayRef sizes, const at::TensorOptions& options) {
  const int64_t count = c10::multiply_integers(sizes);
  const at::Tensor steps = at::arange(count, options.dtype(at::kDouble));
  return steps.mul_(0.6180339887498949).frac_().sub_(0.5).view(sizes).to(options.dtype());
}

}  // namespace nanoflex
