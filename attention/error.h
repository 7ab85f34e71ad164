#pragma once

#include <stdexcept>

namespace nanoflex {

/// An error that the user can mend: one line that says what was wrong, the value seen and how to put
/// it right. Programs print it and exit with code 2.
struct UserError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace nanoflex
