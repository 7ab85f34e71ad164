#pragma once

#include <ATen/Functions.h>

#include <map>
#include <string>

namespace nanoflex {

/// Seconds of a training step by part: "head" (and loss), "attention", "other products" (matrix
/// products of everything else), "optimizer" (with the gradients' norm), "rest". They add up to the
/// time between start and stop. What runs in a backward pass counts where its forward pass ran.
///
/// Times what this thread asks LibTorch for, with what the device does for it: a GPU is waited for
/// where one part ends and the next begins. One at a time.
class PartClock {
 public:
  explicit PartClock(at::Device device);
  ~PartClock();
  PartClock(const PartClock&) = delete;
  PartClock& operator=(const PartClock&) = delete;

  /// Stops, and tells.
  std::map<std::string, double> stop();

 private:
  uint64_t handle_;
};

}  // namespace nanoflex
