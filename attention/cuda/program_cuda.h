#pragma once

#include <memory>
#include <string>
#include <vector>

#include "attention/flex/cuda_source.h"
#include "attention/fused.h"

namespace nanoflex::cuda {

/// The kinds of a block mask in a device's memory, which kernels there read: the same tensor as
/// long as the mask is one of the last few that were asked for.
at::Tensor device_kinds(const std::shared_ptr<const flex::BlockMask>& mask, at::Device device);

/// The program of one call, with the device memory that its arguments point to. It must live until
/// the kernels have been launched.
class Program {
 public:
  Program(const FusedOptions& options, at::Device device);

  const std::string& text() const { return source_.text; }  ///< of KernelOptions
  const void* arguments() const { return arguments_.data(); }

 private:
  at::Tensor kinds_;
  flex::CudaSource source_;
  std::vector<char> arguments_;
};

}  // namespace nanoflex::cuda
