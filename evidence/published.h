// Figures that others published: printed beside measurements, never among them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace nanoflex {

struct Published {
  std::string bench;    ///< of this program, whose table they stand under
  std::string what;     ///< what was run
  std::string machine;  ///< where
  std::string quantity, unit;
  double value;
};

/// The one table of them.
const std::vector<Published>& published_figures();

/// Those of a bench: as rows of {what, machine, quantity, unit, value}, and as a Markdown table
/// under a line that says what they are; an empty list and "" when there are none.
nlohmann::ordered_json published_json(const std::string& bench);
std::string published_markdown(const std::string& bench);

}  // namespace nanoflex
