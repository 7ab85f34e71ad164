// What tests of the emulator share: launching for a fault, and naming the line it must blame.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "tests/simt/simt.h"

namespace nanoflex::simt {

/// The message of the fault that `launch` ends in, "" if none.
inline std::string fault_of(const std::function<void()>& launch) {
  try {
    launch();
  } catch (const Fault& fault) {
    return fault.what();
  }
  return "";
}

/// "FILE:LINE" of the line of this test file that ends in "// line: MARK".
inline std::string place_of(const std::string& mark, const Location& here = Location::current()) {
  std::ifstream file(here.file);
  std::string text;
  for (int line = 1; std::getline(file, text); ++line) {
    if (text.ends_with("// line: " + mark)) {
      return std::string(here.file) + ":" + std::to_string(line);
    }
  }
  return "no line marked " + mark;
}

/// Expects a message that begins with the marked line and says `what`.
inline void expect_fault(const std::string& message, const std::string& mark,
                         const std::string& what, const Location& here = Location::current()) {
  EXPECT_TRUE(message.starts_with(place_of(mark, here) + ": ")) << mark << " in: " << message;
  EXPECT_NE(message.find(what), std::string::npos) << what << " in: " << message;
}

/// Expects a message that names the marked line too.
inline void expect_mention(const std::string& message, const std::string& mark,
                           const Location& here = Location::current()) {
  EXPECT_NE(message.find(place_of(mark, here)), std::string::npos) << mark << " in: " << message;
}

inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
inline float to_float(__half value) { return __half2float(value); }

/// T: __nv_bfloat16 or __half.
template <typename T>
T round_to(float value) {
  if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(value);
  } else {
    return __float2bfloat16_rn(value);
  }
}

inline std::vector<float> random_numbers(int count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace nanoflex::simt
