#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "trainer/run_folder.h"

namespace nanoflex {

/// How far a run is, for its one line.
struct ProgressState {
  std::optional<int64_t> steps = {};  ///< of the whole run
  std::optional<double> share = {};   ///< done, 0 to 1
  std::optional<double> seconds_left = {};
};

/// Tells how training goes, on stdout. Of the styles of the config's `progress`, "text" is a bar
/// that redraws itself on a terminal, else a plain line every `interval` steps; "json" is a JSON
/// object every `interval` steps, as in metrics.jsonl, and {"message": ...} for what is said;
/// "none" is silent.
class Progress {
 public:
  Progress(int64_t interval, const std::string& style);
  void step(const StepMetrics& metrics, const ProgressState& state);
  /// A line of its own, above the bar.
  void say(const std::string& line);
  /// Leaves the bar's last state standing.
  void finish();

 private:
  enum class Style { kBar, kLines, kJson, kNone };

  int64_t interval_;
  Style style_;
  size_t shown_ = 0;  // characters of the bar's line
};

/// What takes a line of `shown` characters off a terminal that is `width` wide now, perhaps less
/// than when the line was written: then it has wrapped.
std::string erasure(size_t shown, size_t width);

/// The line itself, without the bar.
std::string progress_line(const StepMetrics& metrics, const ProgressState& state);

}  // namespace nanoflex
