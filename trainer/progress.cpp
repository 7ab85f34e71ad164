#include "trainer/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "trainer/text.h"

namespace nanoflex {
namespace {

std::string printed(const char* format, double value) {
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

std::string progress_line(const StepMetrics& metrics, const ProgressState& state) {
  std::string line = "step " + std::to_string(metrics.step);
  if (state.steps) line += "/" + std::to_string(*state.steps);
  line += printed("  loss %.4f", metrics.loss);
  if (metrics.validation_loss) line += printed("  validation %.4f", *metrics.validation_loss);
  if (metrics.bits_per_byte) line += printed("  %.4f bits/byte", *metrics.bits_per_byte);
  line += "  " + short_number(metrics.tokens_per_second) + "tokens/s";
  line += printed("  %.3f TFLOP/s", metrics.tflops_per_second);
  line += "  " + short_number(static_cast<double>(metrics.memory_bytes)) + "B";
  if (state.seconds_left) line += "  " + short_duration(*state.seconds_left) + " left";
  return line;
}

std::string erasure(size_t shown, size_t width) {
  if (shown == 0) return "";
  const size_t rows_above = (shown - 1) / width;
  const std::string up = rows_above > 0 ? "\033[" + std::to_string(rows_above) + "A" : "";
  return "\r" + up + "\033[J";
}

Progress::Progress(int64_t interval, const std::string& style) : interval_(interval) {
  const char* terminal = std::getenv("TERM");
  const bool redraws = isatty(STDOUT_FILENO) && terminal && std::string(terminal) != "dumb";
  style_ = style == "none"   ? Style::kNone
           : style == "json" ? Style::kJson
           : redraws         ? Style::kBar
                             : Style::kLines;
}

void Progress::step(const StepMetrics& metrics, const ProgressState& state) {
  if (style_ == Style::kNone) return;
  std::string line = progress_line(metrics, state);
  if (style_ != Style::kBar) {
    if (metrics.step % interval_ == 0 || metrics.validation_loss || state.share >= 1) {
      std::cout << (style_ == Style::kJson ? to_json(metrics).dump() : line) << std::endl;
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
  // Cut to the window, so that it does not wrap.
  line.resize(std::min(line.size(), width - 1));
  std::cout << erasure(shown_, width) << line << std::flush;
  shown_ = line.size();
}

void Progress::say(const std::string& line) {
  if (style_ == Style::kNone) return;
  if (style_ == Style::kJson) {
    const nlohmann::json message = {{"message", line}};
    std::cout << message.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)
              << std::endl;
    return;
  }
  std::cout << erasure(shown_, terminal_width()) << line << std::endl;
  shown_ = 0;
}

void Progress::finish() {
  if (shown_ > 0) std::cout << std::endl;
  shown_ = 0;
}

}  // namespace nanoflex
