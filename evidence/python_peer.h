#pragma once

#include <sys/types.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "evidence/measure.h"

namespace nanoflex {

/// A Python with torch that runs the calls of scripts/peers/`peer`.py one at a time, when it is
/// told to, so that they take turns with ours.
class PythonPeer {
 public:
  /// Starts it, and waits until its calls are compiled. Throws std::runtime_error when it ends.
  PythonPeer(const std::string& python, const std::string& peer, const std::string& dtype);
  PythonPeer(const PythonPeer&) = delete;
  PythonPeer& operator=(const PythonPeer&) = delete;
  ~PythonPeer();

  /// Whether it has a call of this name, and it runs.
  bool can_run(const std::string& name) const;
  /// The call, which tells its own time. REQUIRES: can_run(name); not to be run after *this is
  /// gone. Throws std::runtime_error when the process ends meanwhile.
  Contender contender(const std::string& name);

  /// Keeps what a call's time was, in turn with our own.
  void add(const std::string& name, const Measured& measured, const Measured& own);
  /// {torch, dtype, and by its name each call's {ms, faster {value, range}}: how many times faster
  /// ours is; or {error}}.
  const nlohmann::ordered_json& record() const { return record_; }

 private:
  std::string answer();
  int end(int signal);  // its status

  const std::string name_;
  pid_t process_ = -1;
  int socket_ = -1;
  std::string unread_;
  nlohmann::ordered_json record_;
};

/// One of its calls, in words.
struct PythonRow {
  std::string name, what;
};

/// Calls of a record beside `backend`'s times, as a table.
std::string python_markdown(const nlohmann::ordered_json& record, const std::string& backend,
                            const std::vector<PythonRow>& rows);

/// Seconds from a program's start to its end, and what it printed. Throws std::runtime_error, with
/// `hint`, when it fails.
struct TimedRun {
  double seconds;
  std::string output;
};
TimedRun time_command(const std::vector<std::string>& command, const std::string& hint);

/// The command that runs scripts/peers/`peer`.py with these arguments and our number of threads.
std::vector<std::string> python_command(const std::string& python, const std::string& peer,
                                        const std::vector<std::string>& arguments);
/// What to say when it fails.
extern const char* const kPythonHint;

}  // namespace nanoflex
