#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace nanoflex {

/// What scripts/peers/`peer`.py times, by the interpreter `python`: {torch, dtype, and by name {ms}
/// or {error}}. Throws std::runtime_error when it cannot be run.
nlohmann::ordered_json time_python(const std::string& python, const std::string& peer,
                                   const std::string& dtype, int64_t repeat);

/// Seconds from a program's start to its end, and what it printed. Throws std::runtime_error, with
/// `hint`, when it fails.
struct TimedRun {
  double seconds;
  std::string output;
};
TimedRun time_command(const std::vector<std::string>& command, const std::string& hint);

/// The command that runs scripts/peers/`peer`.py, and what to say when it fails.
std::vector<std::string> python_command(const std::string& python, const std::string& peer,
                                        const std::string& dtype, int64_t count);
extern const char* const kPythonHint;

/// Something that was timed there, and here.
struct PythonRow {
  std::string key, what;
  double our_ms;
};

/// Those beside `backend`'s times, as a table.
std::string python_markdown(const nlohmann::ordered_json& python, const std::string& backend,
                            const std::vector<PythonRow>& rows);

}  // namespace nanoflex
