#pragma once

#include <string>
#include <utility>
#include <vector>

namespace nanoflex {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;
};

/// A line chart with both axes logarithmic (REQUIRES: values above 0), as a standalone SVG that is
/// readable in print and in dark mode. Axis titles name the units.
std::string log_chart(const std::string& title, const std::string& x_title,
                      const std::string& y_title, const std::vector<Series>& series);

}  // namespace nanoflex
