#include "evidence/svg.h"

#include <array>
#include <cmath>
#include <sstream>

namespace nanoflex {

const char* series_colour(size_t index) {
  // Okabe and Ito.
  constexpr std::array kColours = {"#0072b2", "#d55e00", "#009e73",
                                   "#cc79a7", "#e69f00", "#56b4e9"};
  return kColours[index % kColours.size()];
}

std::string svg_text(const std::string& text) {
  std::string result;
  for (const char c : text) {
    result += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  }
  return result;
}

std::string plain_number(double value) {
  std::ostringstream text;
  // As many digits as stand before the point: with fewer, a stream writes an exponent.
  text.precision(value >= 1000 ? static_cast<int>(std::log10(value) + 1e-9) + 1 : 3);
  text << value;
  return text.str();
}

std::string begin_svg(double width, double height, double left, const std::string& title) {
  std::ostringstream svg;
  svg << "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 " << width << " " << height
      << "' font-family='sans-serif' font-size='12'>\n"
      << "<style>svg{background:#fff;color:#222}text{fill:currentColor}.grid{stroke:currentColor;"
         "opacity:.15}@media(prefers-color-scheme:dark){svg{background:#111;color:#eee}}</style>\n"
      << "<text x='" << left << "' y='22' font-size='15'>" << svg_text(title) << "</text>\n";
  return svg.str();
}

std::string legend_line(double x, double y, size_t index, const std::string& name) {
  std::ostringstream svg;
  svg << "<rect x='" << x << "' y='" << y << "' width='12' height='12' fill='"
      << series_colour(index) << "'/><text x='" << x + 18 << "' y='" << y + 10 << "'>"
      << svg_text(name) << "</text>\n";
  return svg.str();
}

}  // namespace nanoflex
