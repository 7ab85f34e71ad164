#include "trainer/numbers.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace nanoflex {
namespace {

std::string formatted(const char* format, int precision, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, precision, value);
  return text;
}

}  // namespace

std::string with_digits(double value, int digits) { return formatted("%.*g", digits, value); }

std::string with_decimals(double value, int decimals) {
  if (!(std::abs(value) < 1e12)) return with_digits(value, 4);
  std::string text = formatted("%.*f", decimals, value);
  const size_t point = std::min(text.find('.'), text.size());
  const size_t first = text[0] == '-' ? 1 : 0;
  for (size_t at = point; at > first + 3;) text.insert(at -= 3, 1, ',');
  return text;
}

}  // namespace nanoflex
