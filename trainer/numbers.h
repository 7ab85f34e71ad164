// Numbers as people read them.
#pragma once

#include <string>

namespace nanoflex {

/// 0.000123 with 2 digits: "0.00012".
std::string with_digits(double value, int digits);

/// 12345.678 with 1 decimal: "12,345.7"; from 1e12 on with 4 digits: "2.021e+12".
std::string with_decimals(double value, int decimals);

}  // namespace nanoflex
