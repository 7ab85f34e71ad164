#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace nanoflex {

/// The baseline's training step in PyTorch, by the interpreter `python`: {torch, dtype, eager {ms},
/// compiled {ms, first_step_seconds} or {error}}. Throws std::runtime_error when it cannot be run.
nlohmann::ordered_json time_python(const std::string& python, const std::string& dtype,
                                   int64_t repeat);

/// Our fastest row of the baseline against those, as a table.
std::string python_markdown(const nlohmann::ordered_json& bench);

}  // namespace nanoflex
