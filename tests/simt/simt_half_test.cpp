// Conversions to and from 16-bit numbers, and exp2, round as on a GPU.
#include <gtest/gtest.h>

#include <limits>

#include "tests/simt/ptx.h"
#include "tests/simt/simt_testing.h"

namespace nanoflex::cuda {
namespace {

using simt::round_to;
using simt::to_float;

/// The nearest of all finite values of a 16-bit type, ties to the even one.
template <typename T>
T nearest(float value) {
  T best{0};
  for (uint32_t bits = 0; bits < 0x8000; ++bits) {
    const T candidate{static_cast<uint16_t>(bits | (std::signbit(value) ? 0x8000 : 0))};
    if (!std::isfinite(to_float(candidate))) break;
    const double distance = std::abs(static_cast<double>(to_float(candidate)) - value);
    const double least = std::abs(static_cast<double>(to_float(best)) - value);
    if (distance < least || (distance == least && bits % 2 == 0)) best = candidate;
  }
  return best;
}

template <typename T>
void expect_conversions() {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const T value{static_cast<uint16_t>(bits)};
    if (std::isnan(to_float(value))) {
      EXPECT_TRUE(std::isnan(to_float(round_to<T>(to_float(value)))));
    } else {
      EXPECT_EQ(round_to<T>(to_float(value)).bits, bits);
    }
  }
  // Ties between two neighbours, and values just beside them.
  for (uint32_t bits : {0x0000u, 0x0001u, 0x03FFu, 0x0400u, 0x3C00u, 0x3C01u, 0x7000u, 0x83FFu}) {
    const double low = to_float(T{static_cast<uint16_t>(bits)});
    const double high = to_float(T{static_cast<uint16_t>(bits + 1)});
    for (double share : {0.25, 0.499, 0.5, 0.501, 0.75}) {
      const float value = static_cast<float>(low + share * (high - low));
      EXPECT_EQ(round_to<T>(value).bits, nearest<T>(value).bits) << value;
    }
  }
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(to_float(round_to<T>(std::numeric_limits<float>::max())), infinity);
  EXPECT_EQ(to_float(round_to<T>(-infinity)), -infinity);
}

TEST(Numbers, SixteenBitConversionsRoundToNearestEven) {
  expect_conversions<__nv_bfloat16>();
  expect_conversions<__half>();
  EXPECT_EQ(to_float(__float2half_rn(65519.0f)), 65504.0f);
  EXPECT_TRUE(std::isinf(to_float(__float2half_rn(65520.0f))));
}

TEST(Numbers, Exp2FlushesSubnormals) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(exp2_approx(3), 8);
  EXPECT_EQ(exp2_approx(-126), 0x1p-126f);
  EXPECT_EQ(exp2_approx(-126.5f), 0);
  EXPECT_EQ(exp2_approx(-infinity), 0);
  EXPECT_EQ(exp2_approx(1e-40f), 1);
  EXPECT_EQ(exp2_approx(200), infinity);
  EXPECT_TRUE(std::isnan(exp2_approx(std::nanf(""))));
}

}  // namespace
}  // namespace nanoflex::cuda
