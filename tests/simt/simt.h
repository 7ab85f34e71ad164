// Runs CUDA kernels on the CPU, one thread of a block after another, and reports what a GPU would
// leave undefined: races, missing waits, reads of unwritten memory, accesses out of bounds.
//
//   simt::Buffer<float> x(values, simt::Access::read), y(n);
//   simt::launch({.grid = {8}, .block = {128}, .shared_bytes = 1024}, kernel<64>, params);
//   y.values();
//
// Kernel sources are compiled by g++ with -fsanitize=thread, whose calls before every access are
// the emulator's eyes (simt_hooks.cpp; no sanitizer is linked), and with -g1, so that a fault can
// name its line.
//
// Stricter than most GPUs: only __syncthreads and __syncwarp order memory, not shuffles or
// ldmatrix; every lane that a mask names must come, even one that might have exited; no thread may
// exit while its asynchronous copies are in flight. Not seen: an access that misses its static
// __shared__ array and hits another kernel's. All launches of a program come from one host thread.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/simt/simt_cuda.h"

namespace nanoflex::simt {

/// What a kernel did wrong; what() begins with "file:line: " of the kernel's source.
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Access { read, read_write };

/// Registers memory that kernels may touch, for as long as the object lives.
class Registration {
 public:
  /// A kernel may read `unwritten` memory only after one has written it. Races are judged for each
  /// `granule` bytes, the size of the smallest element that a thread writes.
  Registration(void* memory, size_t bytes, size_t granule, Access access, bool unwritten);
  ~Registration();
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;

 private:
  void* memory_;
};

/// Global memory of `size()` elements, 256-byte aligned like cudaMalloc's.
template <typename T>
class Buffer {
 public:
  /// Unwritten memory: NaN to the host, a fault to a kernel that reads it.
  explicit Buffer(size_t size) : Buffer(size, Access::read_write, true) {}
  explicit Buffer(const std::vector<T>& values, Access access = Access::read_write)
      : Buffer(values.size(), access, false) {
    std::copy(values.begin(), values.end(), data());
  }

  T* data() { return reinterpret_cast<T*>(memory_.data() + offset_); }
  const T* data() const { return reinterpret_cast<const T*>(memory_.data() + offset_); }
  size_t size() const { return size_; }
  std::vector<T> values() const { return std::vector<T>(data(), data() + size_); }

 private:
  // Room on both sides, so that an access just outside hits no other buffer.
  static constexpr size_t kMargin = 4096, kAlignment = 256;

  Buffer(size_t size, Access access, bool unwritten)
      : size_(size),
        memory_(size * sizeof(T) + 2 * kMargin, 0xFF),
        offset_(kMargin + kAlignment -
                (reinterpret_cast<uintptr_t>(memory_.data()) + kMargin) % kAlignment),
        registration_(data(), size * sizeof(T), std::min<size_t>(sizeof(T), 4), access, unwritten) {
  }

  size_t size_;
  std::vector<unsigned char> memory_;
  size_t offset_;
  Registration registration_;
};

struct LaunchOptions {
  dim3 grid, block;
  size_t shared_bytes = 0;  // of dynamic_shared
};

/// Runs body(context) as every thread of the grid, blocks in order. Throws Fault at the first
/// fault.
void run(const LaunchOptions& options, void (*body)(const void*), const void* context);

template <typename... Arguments>
struct Call {
  void (*kernel)(Arguments...);
  std::tuple<Arguments...> arguments;

  // Arguments lie in the host's memory, where no thread of a kernel may look.
  __attribute__((no_sanitize("thread"))) static void make(const void* context) {
    const Call& call = *static_cast<const Call*>(context);
    call.with(std::index_sequence_for<Arguments...>());
  }
  template <size_t... index>
  __attribute__((no_sanitize("thread"))) void with(std::index_sequence<index...>) const {
    kernel(std::get<index>(arguments)...);
  }
};

/// kernel<<<grid, block, shared_bytes>>>(arguments...).
template <typename... Parameters, typename... Arguments>
void launch(const LaunchOptions& options, void (*kernel)(Parameters...), Arguments... arguments) {
  const Call<Parameters...> call{kernel, {arguments...}};
  run(options, &Call<Parameters...>::make, &call);
}

}  // namespace nanoflex::simt
