#include <immintrin.h>

#include "attention/cpu/instantiate.h"

namespace nanoflex::cpu {
namespace {

struct Dot {
  using F = Vectors<16>::F;
  using U = Vectors<16>::U;
  static F dot(F sum, U a, U b) {
    return reinterpret_cast<F>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum),
                                                reinterpret_cast<__m512bh>(a),
                                                reinterpret_cast<__m512bh>(b)));
  }
};

}  // namespace

KernelSet avx512_bf16_kernels() {
  return {"avx512_bf16", kernels_of<Float32Math<16, 12, 2>, float>(),
          kernels_of<BFloat16Math<Dot>, uint16_t>()};
}

}  // namespace nanoflex::cpu
