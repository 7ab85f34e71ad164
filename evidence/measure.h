#pragma once

#include <ATen/Functions.h>

#include <functional>
#include <string>
#include <vector>

namespace nanoflex {

/// Something whose time is taken, beside others.
struct Contender {
  std::string name;
  std::function<void()> run;
  std::function<double()> timed = {};  ///< in place of `run`: runs, and tells its own milliseconds
};

struct Measured {
  std::string name = {};
  double median_ms = 0;
  double spread = 0;                    ///< (slowest - fastest) / median of the repeats
  int64_t peak_bytes = 0;               ///< of tensors, beyond what was live before
  std::vector<double> repeats_ms = {};  ///< in the order in which they ran
};

/// The median and spread of some repeats. REQUIRES: at least one.
Measured summarise(const std::vector<double>& repeats_ms);

/// How many times faster one is than another: by their medians, and the least and the most of the
/// repeats that ran in turn; where those are fewer than three, of every repeat against every other,
/// because two pairs agree by chance.
struct Ratio {
  double value = 0, low = 0, high = 0;
};
Ratio times_faster(const Measured& one, const Measured& peer);

struct MeasureOptions {
  int64_t repeat = 5;
  at::Device device = at::kCPU;
  double shortest_ms = 5;     ///< a repeat runs as often as it takes to last this long
  double patience_ms = 2000;  ///< what takes longer has its second run timed, and no other
};

/// Times each contender `repeat` times, taking turns, so that a noisy neighbour hits all alike.
/// One or two untimed runs of each come first. REQUIRES: track_cpu_memory() was called.
std::vector<Measured> measure(const std::vector<Contender>& contenders,
                              const MeasureOptions& options);

/// LibTorch's matrix product of two 2048 x 2048 matrices, on a GPU 8192 x 8192, the yardstick of a
/// machine: in fp32 where the device has no instructions for products of bf16, which LibTorch then
/// computes one number at a time, hundreds of times slower.
Contender gemm(at::ScalarType dtype, at::Device device);

/// The rate of a product that gemm() was measured at, in TFLOP/s.
double gemm_tflops(const Measured& gemm, at::Device device);

/// LibTorch's rate of gemm() in a dtype on a device, in TFLOP/s.
double gemm_tflops(at::ScalarType dtype, const MeasureOptions& options);

}  // namespace nanoflex
