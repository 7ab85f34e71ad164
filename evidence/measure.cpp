#include "evidence/measure.h"

#include <algorithm>
#include <chrono>

#include "trainer/machine.h"
#include "trainer/machine_limits.h"
#include "trainer/memory.h"

namespace nanoflex {
namespace {

double run_ms(const Contender& contender, int64_t times, at::Device device) {
  if (contender.timed) {
    double sum = 0;
    for (int64_t i = 0; i < times; ++i) sum += contender.timed();
    return sum / static_cast<double>(times);
  }
  synchronize(device);
  const auto begin = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < times; ++i) contender.run();
  synchronize(device);
  const std::chrono::duration<double, std::milli> passed = std::chrono::steady_clock::now() - begin;
  return passed.count() / static_cast<double>(times);
}

int64_t gemm_side(at::Device device) { return device.is_cuda() ? 8192 : 2048; }

}  // namespace

Measured summarise(const std::vector<double>& repeats_ms) {
  std::vector<double> times = repeats_ms;
  std::sort(times.begin(), times.end());
  const size_t middle = times.size() / 2;
  const double median =
      times.size() % 2 == 1 ? times[middle] : (times[middle - 1] + times[middle]) / 2;
  return {.median_ms = median,
          .spread = (times.back() - times.front()) / median,
          .repeats_ms = repeats_ms};
}

Ratio times_faster(const Measured& one, const Measured& peer) {
  const std::vector<double>&own = one.repeats_ms, &others = peer.repeats_ms;
  std::vector<double> ratios;
  const bool paired = own.size() == others.size() && own.size() > 2;
  for (size_t i = 0; i < own.size(); ++i) {
    for (size_t j = 0; j < others.size(); ++j) {
      if (!paired || i == j) ratios.push_back(others[j] / own[i]);
    }
  }
  const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
  return {.value = peer.median_ms / one.median_ms, .low = *low, .high = *high};
}

std::vector<Measured> measure(const std::vector<Contender>& contenders,
                              const MeasureOptions& options) {
  std::vector<int64_t> peaks, times_each;
  std::vector<std::vector<double>> times(contenders.size());
  for (const Contender& contender : contenders) {
    const int64_t before = live_tensor_bytes(options.device);
    reset_peak_memory(options.device);
    // The first run compiles a GPU's kernels, and takes memory that is new.
    run_ms(contender, 1, options.device);
    peaks.push_back(peak_tensor_bytes(options.device) - before);
    const double once = run_ms(contender, 1, options.device);
    times_each.push_back(
        once > options.patience_ms
            ? 0
            : std::clamp<int64_t>(static_cast<int64_t>(options.shortest_ms / once), 1, 1000));
    if (times_each.back() == 0) times[peaks.size() - 1].push_back(once);
  }
  for (int64_t repeat = 0; repeat < options.repeat; ++repeat) {
    for (size_t i = 0; i < contenders.size(); ++i) {
      if (times_each[i] == 0) continue;
      times[i].push_back(run_ms(contenders[i], times_each[i], options.device));
    }
  }
  std::vector<Measured> result;
  for (size_t i = 0; i < contenders.size(); ++i) {
    result.push_back(summarise(times[i]));
    result.back().name = contenders[i].name;
    result.back().peak_bytes = peaks[i];
  }
  return result;
}

Contender gemm(at::ScalarType dtype, at::Device device) {
  const bool emulated = dtype == at::kBFloat16 && !multiplies_bfloat16_fast(device);
  const auto kind = at::TensorOptions().dtype(emulated ? at::kFloat : dtype).device(device);
  const int64_t side = gemm_side(device);
  const at::Tensor a = varied_numbers({side, side}, kind);
  return {"gemm", [a, c = at::empty_like(a)]() mutable { at::mm_out(c, a, a); }};
}

double gemm_tflops(const Measured& gemm, at::Device device) {
  const auto side = static_cast<double>(gemm_side(device));
  return 2 * side * side * side / gemm.median_ms / 1e9;
}

double gemm_tflops(at::ScalarType dtype, const MeasureOptions& options) {
  return gemm_tflops(measure({gemm(dtype, options.device)}, options)[0], options.device);
}

}  // namespace nanoflex
