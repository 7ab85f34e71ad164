#include "trainer/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>

namespace nanoflex {
namespace {

std::string formatted(const char* format, double value) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, format, value);
  return buffer;
}

size_t terminal_width() {
  winsize size{};
  const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

std::string bar(double share, size_t width) {
  const auto filled = static_cast<size_t>(std::clamp(share, 0.0, 1.0) * static_cast<double>(width));
  return "[" + std::string(filled, '=') + std::string(width - filled, ' ') + "] ";
}

}  // namespace

std::string short_number(double value) {
  const char* prefixes[] = {"", "k", "M", "G", "T", "P"};
  size_t prefix = 0;
  while (std::abs(value) >= 999.5 && prefix + 1 < std::size(prefixes)) {
    value /= 1000;
    ++prefix;
  }
  const char* format = std::abs(value) < 9.995 ? "%.2f" : std::abs(value) < 99.95 ? "%.1f" : "%.0f";
  return formatted(format, value) + " " + prefixes[prefix];
}

std::string short_duration(double seconds) {
  const auto whole = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  char buffer[64];
  if (whole >= 3600) {
    std::snprintf(buffer, sizeof buffer, "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60,
                  whole % 60);
  } else {
    std::snprintf(buffer, sizeof buffer, "%ld:%02ld", whole / 60, whole % 60);
  }
  return buffer;
}

std::string progress_line(const StepMetrics& metrics, const ProgressState& state) {
  std::string line = "step " + std::to_string(metrics.step);
  if (state.steps) line += "/" + std::to_string(*state.steps);
  line += formatted("  loss %.4f", metrics.loss);
  if (metrics.validation_loss) line += formatted("  validation %.4f", *metrics.validation_loss);
  if (metrics.bits_per_byte) line += formatted("  %.4f bits/byte", *metrics.bits_per_byte);
  line += "  " + short_number(metrics.tokens_per_second) + "tokens/s";
  line += formatted("  %.3f TFLOP/s", metrics.tflops_per_second);
  line += "  " + short_number(static_cast<double>(metrics.memory_bytes)) + "B";
  if (state.seconds_left) line += "  " + short_duration(*state.seconds_left) + " left";
  return line;
}

Progress::Progress(int64_t interval) : interval_(interval), terminal_(isatty(STDOUT_FILENO)) {}

void Progress::step(const StepMetrics& metrics, const ProgressState& state) {
  std::string line = progress_line(metrics, state);
  if (!terminal_) {
    if (metrics.step % interval_ == 0 || metrics.validation_loss || state.share >= 1) {
      std::cout << line << std::endl;
    }
    return;
  }
  if (metrics.validation_loss) {
    say(line);
    return;
  }
  const size_t width = terminal_width();
  constexpr size_t kBarWidth = 20;
  if (state.share && width > line.size() + kBarWidth + 4) {
    line.insert(0, bar(*state.share, kBarWidth));
  }
  // \r and erase: the line is redrawn in place, cut to the window so that it never wraps.
  std::cout << "\r\033[K" << line.substr(0, width - 1) << std::flush;
  bar_shown_ = true;
}

void Progress::say(const std::string& line) {
  std::cout << (bar_shown_ ? "\r\033[K" : "") << line << std::endl;
  bar_shown_ = false;
}

void Progress::finish() {
  if (bar_shown_) std::cout << std::endl;
  bar_shown_ = false;
}

}  // namespace nanoflex
