#pragma once

#include <string>
#include <vector>

#include "attention/cuda/sources.h"

namespace nanoflex::cuda {

/// A kernel for one architecture, and what its compiler said of it.
struct Cubin {
  std::string image;  ///< for cudaLibraryLoadData
  std::string log;
  int registers = 0;     ///< per thread
  int stack_bytes = 0;   ///< local memory per thread
  int spill_bytes = 0;   ///< stores and loads of registers that did not fit
  int shared_bytes = 0;  ///< static
};

/// NVIDIA's run-time compiler, found and loaded when it is first needed; needs no GPU.
class Nvrtc {
 public:
  /// The compiler of this process. Throws std::runtime_error, naming where it looked, when there is
  /// none: `libnvrtc.so.13` among LibTorch's CUDA wheels, in NANOFLEX_NVRTC (a folder), then by the
  /// loader's own rules (LD_LIBRARY_PATH).
  static const Nvrtc& get();

  /// Compiles a source with one kernel for an architecture such as "sm_90a". Throws
  /// std::runtime_error with the first error of the log, in one line.
  Cubin compile(const std::string& name, const std::string& text,
                const std::vector<Source>& headers, const std::string& architecture) const;

  /// What besides sources and architecture decides the result: version and options.
  std::string identity() const;

 private:
  Nvrtc();
  std::vector<std::string> options() const;

  struct Functions;
  const Functions* functions_;
  std::string version_, include_folder_;
};

}  // namespace nanoflex::cuda
