// Numbers, and values of records, as people read them.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace nanoflex {

/// 0.000123 with 2 digits: "0.00012".
std::string with_digits(double value, int digits);

/// 12345.678 with 1 decimal: "12345.7".
std::string fixed(double value, int decimals);

/// 12345.678 with 1 decimal: "12,345.7"; from 1e12 on with 4 digits: "2.021e+12".
std::string with_decimals(double value, int decimals);

/// "1.23 G", "45.6 k": three significant digits with an SI prefix.
std::string short_number(double value);

/// "2:05", "1:00:03"
std::string short_duration(double seconds);

/// Text from a record without control characters: it must not steer the terminal.
std::string printable(std::string text);

/// A value for people: strings without quotes, long values cut, nothing that steers the terminal.
std::string shown(const nlohmann::json& value);
/// The same, or "-" where there is none.
std::string shown_or_dash(const std::optional<nlohmann::json>& value);

template <typename Value>
nlohmann::json or_null(const std::optional<Value>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json();
}

}  // namespace nanoflex
