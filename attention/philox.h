// Counter-based random bits for dropout: the same on the CPU, on a GPU and in plain tensors.
#pragma once

#if !defined(__CUDACC_RTC__)
#include <cstdint>
#endif

#if defined(__CUDACC__) || defined(NANOFLEX_SIMT)
#define NANOFLEX_DEVICE __host__ __device__ __forceinline__
#else
#define NANOFLEX_DEVICE inline
#endif

namespace nanoflex {

struct PhiloxWords {
  uint32_t word[4];
};

/// Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
NANOFLEX_DEVICE PhiloxWords philox(uint64_t seed, uint32_t c0, uint32_t c1, uint32_t c2,
                                   uint32_t c3) {
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * c0, product1 = uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(product1);
    c3 = static_cast<uint32_t>(product0);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return {{c0, c1, c2, c3}};
}

/// The words that decide keys kv .. kv + 3 (kv a multiple of 4) of query row i (0 <= i < T) in head
/// `head` = b * H + h. A weight is kept where its word is at least the threshold.
NANOFLEX_DEVICE PhiloxWords dropout_words(uint64_t seed, uint32_t head, uint32_t i, uint32_t kv) {
  return philox(seed, kv / 4, i, head, 0);
}

/// Words below this are dropped; probability in [0, 1).
NANOFLEX_DEVICE uint32_t dropout_threshold(double probability) {
  return static_cast<uint32_t>(probability * 4294967296.0);
}

}  // namespace nanoflex
