#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "trainer/run_folder.h"

namespace nanoflex {

/// "1.23 G", "45.6 k": three significant digits with an SI prefix.
std::string short_number(double value);
/// "2:05", "1:00:03"
std::string short_duration(double seconds);

/// How far a run is, for its one line.
struct ProgressState {
  std::optional<int64_t> steps = {};  ///< of the whole run
  std::optional<double> share = {};   ///< done, 0 to 1
  std::optional<double> seconds_left = {};
};

/// Tells a person how training goes: a bar that redraws itself on a terminal, else a plain line
/// every `interval` steps.
class Progress {
 public:
  explicit Progress(int64_t interval);
  void step(const StepMetrics& metrics, const ProgressState& state);
  /// A line of its own, above the bar.
  void say(const std::string& line);
  /// Leaves the bar's last state standing.
  void finish();

 private:
  int64_t interval_;
  bool terminal_;
  bool bar_shown_ = false;
};

/// The line itself, without the bar.
std::string progress_line(const StepMetrics& metrics, const ProgressState& state);

}  // namespace nanoflex
