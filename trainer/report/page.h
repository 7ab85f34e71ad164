#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace nanoflex {

struct Page {
  std::string title;         ///< a text; escaped here
  std::string body;          ///< HTML
  nlohmann::json runs = {};  ///< whose curves the charts show: an array of curves_of()
};

/// A whole page that needs nothing but itself: style, script, chart library and data. It forbids
/// the browser to load anything from elsewhere.
std::string html_page(const Page& page);

/// The places of the charts over these runs, and what steers them; the page's script draws them. A
/// number that no run has is left out.
std::string chart_places(const nlohmann::json& runs);

}  // namespace nanoflex
