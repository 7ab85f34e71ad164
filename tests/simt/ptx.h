// The instructions of attention/cuda/ptx.cuh in plain C++, after the PTX ISA manual ("Warp-level
// matrix instructions", "Data movement: cp.async"). A lane's place in the warp is `lane`.
//
// Each faults, with the caller's line, on what the manual leaves undefined: a warp whose lanes do
// not all arrive, misaligned or foreign addresses, and the memory faults of simt.h.
#pragma once

#include "tests/simt/simt.h"

namespace nanoflex::cuda {

using Location = simt::Location;

/// Loads four matrices of 8 x 8 16-bit elements from shared memory: lane gives the address of row
/// lane % 8 of matrix lane / 8 (16 bytes, 16-byte aligned). r[j] receives of matrix j the elements
/// 2 * (lane % 4), + 1 of row lane / 4; transposed: of column lane / 4. The lower column (or row)
/// is in the lower half.
void ldmatrix_x4(uint32_t (&r)[4], const void* row, const Location& where = Location::current());
void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row,
                       const Location& where = Location::current());

/// c [16, 8] += a [16, 16] b [16, 8], T = __nv_bfloat16 or __half, accumulated in fp32. With
/// g = lane / 4, t = lane % 4:
///   a[0], a[1]: columns 2t, 2t + 1 of rows g, g + 8; a[2], a[3]: columns 2t + 8, 2t + 9 of these
///   b[0], b[1]: rows 2t, 2t + 1 and 2t + 8, 2t + 9 of column g
///   c[0], c[1]: columns 2t, 2t + 1 of row g; c[2], c[3]: of row g + 8
template <typename T>
void mma_16x8x16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                 const Location& where = Location::current());
template <>
void mma_16x8x16<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                const Location& where);
template <>
void mma_16x8x16<__half>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                         const Location& where);

/// c [16, 8] += a [16, 8] b [8, 8] of fp32 numbers whose low 13 mantissa bits are ignored.
///   a[0], a[1]: column t of rows g, g + 8; a[2], a[3]: column t + 4 of these
///   b[0], b[1]: rows t and t + 4 of column g
///   c: as above
void mma_16x8x8_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                     const Location& where = Location::current());

/// Starts a copy of `bytes` (0 to 16) bytes from global to shared memory; the rest of the 16
/// becomes zero. Until a wait covers its group the destination is poison, and touching it a fault.
void cp_async_16(void* shared, const void* global, int bytes,
                 const Location& where = Location::current());
/// Closes the group of the copies that this thread has started since its last commit.
void cp_async_commit();
void cp_async_wait_for_all_but(int newest_groups);
/// Returns when all but the newest N groups of this thread have arrived. Other threads see the data
/// after a barrier.
template <int N>
void cp_async_wait() {
  cp_async_wait_for_all_but(N);
}

/// 2^x; subnormal inputs and results become zero.
float exp2_approx(float x);

}  // namespace nanoflex::cuda
