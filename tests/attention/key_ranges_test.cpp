#include "attention/flex/key_ranges.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include "attention/flex/evaluate.h"
#include "attention/flex/masks.h"
#include "attention/fused.h"
#include "tests/attention/reference.h"

namespace nanoflex::flex {
namespace {

constexpr int64_t kBatches = 2, kKeys = 6;

Expression documents(at::IntArrayRef first, at::IntArrayRef second) {
  const at::Tensor numbers = at::stack({at::tensor(first), at::tensor(second)});
  return bind(document(), {{"document", numbers}});
}

std::string where_they_lie(const RangesAndRest& split, int64_t b) {
  std::string text;
  for (int64_t p = 0; p < kKeys; ++p) {
    text += std::to_string(split.ranges[b][p][0].item<int32_t>()) +
            std::to_string(split.ranges[b][p][1].item<int32_t>()) + " ";
  }
  return text;
}

TEST(KeyRanges, AreEachQuerysDocument) {
  const RangesAndRest split =
      split_ranges(documents({0, 0, 0, 1, 1, 2}, {7, 4, 4, 4, 4, 5}), kBatches, kKeys);
  EXPECT_FALSE(split.rest.defined());
  EXPECT_EQ(where_they_lie(split, 0), "03 03 03 35 35 56 ");
  EXPECT_EQ(where_they_lie(split, 1), "01 15 15 15 15 56 ");
}

TEST(KeyRanges, AreOfAllGroupsTogetherAndLeaveTheRest) {
  const Expression odd = trace_mask([](auto, auto, auto q, auto kv) { return (q + kv) % 2 == 1; });
  const Expression halves = trace_mask([](auto, auto, auto q, auto kv) { return kv / 4 == q / 4; });
  const RangesAndRest split = split_ranges(
      odd & documents({0, 0, 0, 1, 1, 1}, {0, 0, 0, 0, 0, 0}) & halves, kBatches, kKeys);
  EXPECT_TRUE(equal(split.rest, odd));
  EXPECT_EQ(where_they_lie(split, 0), "03 03 03 34 46 46 ");
  EXPECT_EQ(where_they_lie(split, 1), "04 04 04 04 46 46 ");
}

// A document that goes on after another one, by-head groups, keys compared with something else.
TEST(KeyRanges, AreNotTakenFromWhatIsNoGroup) {
  const at::Tensor other = at::zeros({kBatches, kKeys}, at::kLong);
  const Captured a("a", other), b("b", other.clone());
  for (const Expression& mask :
       {documents({0, 0, 1, 1, 0, 0}, {0, 0, 0, 0, 0, 0}),
        trace_mask([](auto, auto h, auto q, auto kv) { return q / (h + 1) == kv / (h + 1); }),
        trace_mask([&](auto i, auto, auto q, auto kv) { return a[i][q] == b[i][kv]; }),
        trace_mask([](auto, auto, auto q, auto kv) { return q / 2 == kv / 3; }),
        trace_mask([](auto, auto, auto q, auto kv) { return q % 2 == kv % 2; }),
        document() | causal(), causal()}) {
    const RangesAndRest split = split_ranges(mask, kBatches, kKeys);
    EXPECT_FALSE(split.ranges.defined()) << to_text(mask);
    EXPECT_TRUE(equal(split.rest, mask));
  }
}

TEST(KeyRanges, FollowWhatTheTensorHolds) {
  const at::Tensor numbers = at::tensor({0, 0, 0, 1, 1, 1}).view({1, kKeys});
  const Spec spec = {.mask = causal() & bind(document(), {{"document", numbers}})};
  const at::Tensor x = at::zeros({1, 1, kKeys, 8});
  EXPECT_EQ(fused_options(x, x, spec).ranges[0][2][1].item<int32_t>(), 3);
  numbers[0][2].fill_(1);
  EXPECT_EQ(fused_options(x, x, spec).ranges[0][2][1].item<int32_t>(), 6);
  numbers[0][0].fill_(1);
  const FusedOptions again = fused_options(x, x, spec);
  EXPECT_FALSE(again.ranges.defined());
  EXPECT_TRUE(again.blocks);
}

}  // namespace
}  // namespace nanoflex::flex
