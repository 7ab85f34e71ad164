// Tests of what a machine may lack are skipped there, but where set-up has seen to it.
#pragma once

#include <cstdlib>
#include <string>

namespace nanoflex {

/// Whether NANOFLEX_REQUIRED, a list of words, has this one.
inline bool is_required(const std::string& word) {
  const char* words = std::getenv("NANOFLEX_REQUIRED");
  return words && (" " + std::string(words) + " ").find(" " + word + " ") != std::string::npos;
}

}  // namespace nanoflex
