#pragma once

#include <ATen/Functions.h>

#include <cstdint>
#include <string>
#include <vector>

#include "attention/cuda/params.h"
#include "attention/flex/expression.h"

namespace nanoflex::flex {

/// A mask and a score as a program for the CUDA kernels: its source, and what fills its arguments.
struct CudaSource {
  /// CUDA C++ that defines struct FlexProgram as cuda/mask.cuh asks; "" when there is neither mask
  /// nor score. Other constants, tensors and lengths give the same text, unless they make a mask
  /// simpler or parts of an expression equal.
  std::string text;
  std::vector<int32_t> words;       ///< constants (floats by their bits) and the tensors' strides
  std::vector<at::Tensor> tensors;  ///< captured: int32 or fp32, contiguous, on their own device

  /// The bytes of the cuda::ProgramArguments that `text` names.
  std::vector<char> arguments(const cuda::BlockKinds& blocks) const;
};

/// mask, score: undefined for none. REQUIRES: why_no_tile_code() and why_no_cuda_source() are "".
CudaSource cuda_source(const Expression& mask, const Expression& score);

/// Why the CUDA kernels cannot run these on `device` although tile code could, in words; "" when
/// they can.
std::string why_no_cuda_source(const Expression& mask, const Expression& score, at::Device device);

}  // namespace nanoflex::flex
