#pragma once

#include <optional>
#include <string>
#include <vector>

namespace nanoflex {

/// The bars of one colour: a value for each group; none where there is nothing to show.
struct Bars {
  std::string name;
  std::vector<std::optional<double>> values;
};

/// Values that come one by one; groups and names in the order in which they come first.
struct GroupedBars {
  std::vector<std::string> groups;
  std::vector<Bars> series;
  void add(const std::string& group, const std::string& name, std::optional<double> value);
};

/// Groups of bars side by side, each with its value above, as a standalone SVG like those of
/// chart.h. The axis begins at 0 and its title names the unit. REQUIRES: values of at least 0, as
/// many as groups.
std::string bar_chart(const std::string& title, const std::string& x_title,
                      const std::string& y_title, const std::vector<std::string>& groups,
                      const std::vector<Bars>& series);

}  // namespace nanoflex
