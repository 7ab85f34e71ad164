// Few query rows over many keys in the emulator: heads packed into one tile, keys split over
// blocks.
#include "tests/simt/flash_kernels.h"
//
#include <gtest/gtest.h>

namespace nanoflex::simt {
namespace {

using cuda::Gpu;
using cuda::kUnbounded;
using Bf16 = __nv_bfloat16;

template <typename T, int D, cuda::Shape kShape = cuda::decode_shape(D, Gpu::large)>
void expect_close(Problem p, int splits) {
  p.D = D;
  SCOPED_TRACE(p.name() + " splits " + std::to_string(splits));
  const Inputs x = random_inputs(p, rounded<T>);
  const Results truth = plain_attention(p, x), plain = plain_attention(p, x, rounded<T>);
  const Results got = run_split<cuda::ForwardConfig<T, D, kShape>>(p, x, splits);
  EXPECT_EQ((Bound{truth, plain, Dtype<T>::kEpsilon}.why_not(&Results::o, got.o)), "");
  EXPECT_EQ((Bound{truth, plain, Dtype<float>::kEpsilon}.why_not(&Results::lse, got.lse)), "");
}

TEST(FlashDecode, OneTokenOverACache) {
  expect_close<Bf16, 64>({.B = 2, .H = 4, .H_kv = 2, .T = 1, .S = 300}, 3);
  expect_close<__half, 128>({.H = 8, .H_kv = 1, .T = 1, .S = 200}, 2);
  expect_close<Bf16, 256>({.T = 1, .S = 70}, 2);
}

TEST(FlashDecode, AChunkOverACache) {
  expect_close<Bf16, 64>({.H = 6, .H_kv = 2, .T = 5, .S = 200, .time_first = true}, 2);
  expect_close<Bf16, 40>({.H = 4, .H_kv = 1, .T = 17, .S = 150, .left = 60}, 3);
}

TEST(FlashDecode, MoreSplitsThanAWarpHasLanes) { expect_close<Bf16, 64>({.T = 2, .S = 2700}, 41); }

TEST(FlashDecode, MoreSplitsThanBlocksOfKeys) {
  expect_close<Bf16, 64>({.H = 2, .T = 3, .S = 70}, 5);
}

TEST(FlashDecode, OneSplitIsTheSameAsNone) { expect_close<Bf16, 64>({.H = 2, .T = 3, .S = 70}, 1); }

TEST(FlashDecode, RowsThatSeeNothing) { expect_close<Bf16, 64>({.H = 2, .T = 9, .S = 4}, 2); }

TEST(FlashDecode, ManyRowsInLargerBlocks) {
  expect_close<Bf16, 64, cuda::forward_shape(64, Gpu::large)>(
      {.H = 4, .H_kv = 1, .T = 40, .S = 200}, 2);
}

}  // namespace
}  // namespace nanoflex::simt
