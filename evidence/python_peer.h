#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace nanoflex {

/// What scripts/peers/`peer`.py times, by the interpreter `python`: {torch, dtype, and by name {ms}
/// or {error}}. Throws std::runtime_error when it cannot be run.
nlohmann::ordered_json time_python(const std::string& python, const std::string& peer,
                                   const std::string& dtype, int64_t repeat);

/// Something that was timed there, and here.
struct PythonRow {
  std::string key, what;
  double our_ms;
};

/// Those beside `backend`'s times, as a table.
std::string python_markdown(const nlohmann::ordered_json& python, const std::string& backend,
                            const std::vector<PythonRow>& rows);

}  // namespace nanoflex
