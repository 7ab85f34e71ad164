#include "trainer/text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <iterator>

namespace nanoflex {
namespace {

using nlohmann::json;

constexpr size_t kMaxShown = 80;  // bytes of one config value

std::string formatted(const char* format, int precision, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, precision, value);
  return text;
}

std::string shortened(std::string text) {
  if (text.size() <= kMaxShown) return text;
  size_t end = kMaxShown;
  while (end > 0 && (text[end] & 0xc0) == 0x80) --end;  // never inside a UTF-8 character
  return text.substr(0, end) + "...";
}

}  // namespace

std::string with_digits(double value, int digits) { return formatted("%.*g", digits, value); }

std::string fixed(double value, int decimals) { return formatted("%.*f", decimals, value); }

std::string with_decimals(double value, int decimals) {
  if (!(std::abs(value) < 1e12)) return with_digits(value, 4);
  std::string text = fixed(value, decimals);
  const size_t point = std::min(text.find('.'), text.size());
  const size_t first = text[0] == '-' ? 1 : 0;
  for (size_t at = point; at > first + 3;) text.insert(at -= 3, 1, ',');
  return text;
}

std::string short_number(double value) {
  const char* prefixes[] = {"", "k", "M", "G", "T", "P"};
  size_t prefix = 0;
  while (std::abs(value) >= 999.5 && prefix + 1 < std::size(prefixes)) {
    value /= 1000;
    ++prefix;
  }
  const int decimals = std::abs(value) < 9.995 ? 2 : std::abs(value) < 99.95 ? 1 : 0;
  return fixed(value, decimals) + " " + prefixes[prefix];
}

std::string short_duration(double seconds) {
  const auto whole = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  char buffer[64];
  if (whole >= 3600) {
    std::snprintf(buffer, sizeof buffer, "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60,
                  whole % 60);
  } else {
    std::snprintf(buffer, sizeof buffer, "%ld:%02ld", whole / 60, whole % 60);
  }
  return buffer;
}

std::string printable(std::string text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    if (byte < 0x20 || byte == 0x7f) text[i] = '?';
    if (byte == 0xc2 && next >= 0x80 && next < 0xa0) text.replace(i, 2, 1, '?');  // C1 controls
  }
  return text;
}

std::string shown(const json& value) {
  if (value.is_string()) return shortened(printable(value.get<std::string>()));
  if (value.is_number_float() && std::abs(value.get<double>()) >= 1e9) {
    char digits[32];  // 2e+12, where JSON writes 2000000000000.0
    const auto end = std::to_chars(digits, digits + sizeof digits, value.get<double>()).ptr;
    return {digits, end};
  }
  return shortened(printable(value.dump(-1, ' ', false, json::error_handler_t::replace)));
}

std::string shown_or_dash(const std::optional<json>& value) { return value ? shown(*value) : "-"; }

}  // namespace nanoflex
