#pragma once

#include <exception>
#include <optional>
#include <string>

namespace nanoflex {

/// What an exception says of memory that could not be had, on a CPU or a GPU: how much was asked
/// for and how much was free. Empty when it is about something else.
std::optional<std::string> memory_shortage(const std::exception& problem);

/// The first line of what an exception says; LibTorch's go on with a stack.
std::string first_line(const std::exception& problem);

}  // namespace nanoflex
