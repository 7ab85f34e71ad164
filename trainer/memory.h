#pragma once

#include <ATen/Functions.h>

#include <cstdint>
#include <optional>

namespace nanoflex {

/// Counts the bytes of live CPU tensors from here on, and keeps for new ones what old ones leave.
/// LibTorch's allocator still does the work; call once, at the start of the program.
void track_cpu_memory();

/// Bytes of live tensors on the device now, and their peak since reset_peak_memory().
int64_t live_tensor_bytes(at::Device device);
int64_t peak_tensor_bytes(at::Device device);
void reset_peak_memory(at::Device device);

/// Bytes the allocator holds back from the device, peak (GPU); 0 on a CPU.
int64_t peak_reserved_bytes(at::Device device);

/// The process's peak resident set; since reset_peak_memory() where the system tells.
int64_t peak_rss_bytes();

/// Bytes that a new tensor may take on the device now.
int64_t free_memory_bytes(at::Device device);

/// The most that live CPU tensors may take together. Without it they may take what the machine has
/// free; beyond either, allocating one throws c10::OutOfMemoryError.
void limit_tensor_bytes(int64_t bytes);
/// The most that this process's heap may hold in use; nothing: what the machine has.
void limit_heap_bytes(std::optional<int64_t> bytes);
/// The last CPU tensor that could not be had, and what one might have taken then.
struct RefusedTensor {
  int64_t bytes = 0, free = 0;
};
RefusedTensor refused_tensor();

/// Waits until all work queued on the device is done.
void synchronize(at::Device device);

}  // namespace nanoflex
