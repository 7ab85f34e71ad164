// What a kernel's threads may touch, who touched it last, and whether a barrier lies between.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tests/simt/simt_block.h"

namespace nanoflex::simt::memory {

void begin_launch();
/// Shared memory is unwritten again; no access of an earlier block of the launch is ordered before
/// those of this one.
void begin_block(size_t shared_bytes);
/// Every access of the block so far comes before every access from now on.
void pass_barrier();

/// An access of a thread by the code before the return address `site`.
struct Use {
  const Thread& thread;
  uintptr_t site;
};

/// Fault unless the access is allowed.
void check_read(const Use& use, const void* address, size_t bytes);
void check_write(const Use& use, const void* address, size_t bytes);

bool is_shared(const void* address);

/// The destination of an asynchronous copy: written, and untouchable until it has arrived.
void begin_async_write(const Use& use, unsigned char* address, size_t bytes);
void finish_async_write(const Use& use, unsigned char* address, size_t bytes);

}  // namespace nanoflex::simt::memory
