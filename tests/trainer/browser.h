// A real browser without a window, for tests of the pages that runs leave.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace nanoflex {

/// The first of the known names on PATH; empty where there is none.
std::optional<std::string> find_browser();

struct Visit {
  std::string page;  ///< HTML
  int width = 1280, height = 900;
};

struct Seen {
  /// Of each page, in order: {errors: [..], innerWidth, innerHeight, scrollWidth, background,
  /// charts, painted: [pixels of each chart's canvas], values: [the text above each chart],
  /// hovered: [the same, with the pointer amid each chart], axis: [its labels across], zoomed: [the
  /// same once the first chart was dragged over], logarithmic: [its labels upwards on a log
  /// scale]}. Pages without charts lack what there is none of.
  std::vector<nlohmann::json> pages;
  std::vector<std::string> console;  ///< the browser's own lines of what pages logged
};

/// Opens the pages together, each in a frame of its very size (a window is never narrower than 500
/// pixels), points, zooms and switches to a log scale. Throws std::runtime_error with the browser's
/// words when it gives no answer.
Seen open_in_browser(const std::string& browser, const std::vector<Visit>& visits,
                     bool dark = false);

}  // namespace nanoflex
