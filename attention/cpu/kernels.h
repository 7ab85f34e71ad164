// The tile kernels of one instruction set, as a row of pointers.
#pragma once

#include "attention/cpu/problem.h"

namespace nanoflex::cpu {

/// For inputs of one dtype. A unit's scratch must be aligned to 64 bytes.
struct Kernels {
  void (*forward)(const Problem&, const ForwardUnit&, char* scratch);
  void (*backward)(const Problem&, const BackwardUnit&, char* scratch);
  /// delta = rowsum(dO * O) - d_logsumexp of rows [row, row + rows) of one head; d_logsumexp
  /// ([B, H, T]) may be null.
  void (*delta)(const Problem&, const float* d_logsumexp, int64_t b, int64_t h, int64_t row,
                int64_t rows, float* delta);
  int64_t (*scratch_bytes)(const Problem&);  ///< for either pass
  int64_t lanes;    ///< queries (forward) or keys (backward) that a panel holds
  int64_t columns;  ///< most queries of a forward unit; a multiple of lanes
  int64_t keys;     ///< most keys of a backward unit; a multiple of lanes
  int64_t queries;  ///< rows of a block of dq
};

struct KernelSet {
  const char* name;
  Kernels float32, bfloat16;
};

KernelSet portable_kernels();  ///< any CPU
KernelSet avx2_kernels();
KernelSet avx512_kernels();
KernelSet avx512_bf16_kernels();
KernelSet amx_kernels();

// The last three with their instructions written out in plain C++, for tests on any CPU.
KernelSet emulated_avx512_kernels();
KernelSet emulated_avx512_bf16_kernels();
KernelSet emulated_amx_kernels();

}  // namespace nanoflex::cpu
