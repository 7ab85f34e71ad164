#pragma once

#include <string>
#include <vector>

#include "attention/cuda/shapes.h"
#include "attention/cuda/sources.h"

namespace nanoflex::cuda {

enum class Type { bfloat16, float16, float32 };
std::string name_of(Type type);         ///< "bf16"
std::string source_name_of(Type type);  ///< "__nv_bfloat16"

/// One kernel as CUDA source, with the numbers that its launch needs.
struct Kernel {
  std::string name;  ///< says what it is, for logs and errors
  std::string text;  ///< defines an extern "C" kernel named kKernelName
  int threads;
  int shared_bytes;                                          ///< dynamic
  int rows;                                                  ///< (or keys) that a block owns
  const std::vector<Source>* sources = &embedded_sources();  ///< that `text` includes
};
constexpr char kKernelName[] = "nanoflex_kernel";

/// What is fixed when a kernel is compiled.
struct KernelOptions {
  Type type;
  int D;  ///< head size, 1 to 256
  Gpu gpu;
  bool dropout = false;
  bool tf32 = false;  ///< of float32 alone
  /// CUDA C++ that defines struct FlexProgram as mask.cuh asks, over ProgramArguments that it names
  /// Arguments; "": NoProgram. Kernels with one take its arguments after their own.
  std::string program = {};
};

/// softmax(q k^T) v over whole rows of keys.
Kernel forward_kernel(const KernelOptions& options);

/// Keys split over blocks, rows of all heads of a key head packed: its parts are joined by
/// combine_kernel. few_rows: at most 16 of them. REQUIRES: a 16-bit type, no dropout.
Kernel split_kernel(const KernelOptions& options, bool few_rows);
Kernel combine_kernel(const KernelOptions& options);

/// The backward pass in the order of launches: delta, then dq, then dk and dv (one kernel or two).
struct BackwardKernels {
  Kernel delta, queries;
  std::vector<Kernel> keys;
};
BackwardKernels backward_kernels(const KernelOptions& options);

/// Every kind of kernel for a kind of GPU, in bfloat16 at every padded head size, in the other
/// types at some: what the compile test goes through.
std::vector<Kernel> all_kernels(Gpu gpu);

}  // namespace nanoflex::cuda
