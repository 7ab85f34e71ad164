#include "evidence/bars.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "evidence/svg.h"

namespace nanoflex {
namespace {

constexpr double kBarsHeight = 400, kBarsLeft = 70, kLegend = 48, kBarsTop = 50, kBarsBottom = 50;
constexpr double kBar = 34, kGap = 24, kLetter = 6.5,
                 kLeast = 300;  // widths; the last of all groups

// A round step of which four to eight reach the largest value.
double step_of(double most) {
  const double power = std::pow(10, std::floor(std::log10(most)));
  for (const double step : {0.2, 0.5, 1.0}) {
    if (most / (step * power) <= 5) return step * power;
  }
  return 2 * power;
}

void draw_scale(std::ostringstream& svg, double right, double step, double top) {
  const double base = kBarsHeight - kBarsBottom;
  for (int i = 0; i * step <= top * (1 + 1e-9); ++i) {
    const double y = base - i * step / top * (base - kBarsTop);
    svg << "<line class='grid' x1='" << kBarsLeft << "' x2='" << right << "' y1='" << y << "' y2='"
        << y << "'/><text x='" << kBarsLeft - 8 << "' y='" << y + 4 << "' text-anchor='end'>"
        << plain_number(i * step) << "</text>\n";
  }
}

void draw_bar(std::ostringstream& svg, double x, std::optional<double> value, double top,
              size_t index) {
  const double base = kBarsHeight - kBarsBottom,
               height = value.value_or(0) / top * (base - kBarsTop);
  if (value) {
    svg << "<rect class='bar' x='" << x + 1 << "' y='" << base - height << "' width='" << kBar - 2
        << "' height='" << height << "' fill='" << series_colour(index) << "'/>";
  }
  svg << "<text x='" << x + kBar / 2 << "' y='" << base - height - 4
      << "' text-anchor='middle' font-size='10'>" << (value ? plain_number(*value) : "-")
      << "</text>\n";
}

}  // namespace

void GroupedBars::add(const std::string& group, const std::string& name,
                      std::optional<double> value) {
  const auto place = std::find(groups.begin(), groups.end(), group) - groups.begin();
  if (place == std::ssize(groups)) groups.push_back(group);
  auto bars =
      std::find_if(series.begin(), series.end(), [&](const Bars& one) { return one.name == name; });
  if (bars == series.end()) bars = series.insert(series.end(), {name, {}});
  for (Bars& one : series) one.values.resize(groups.size());
  bars->values[place] = value;
}

std::string bar_chart(const std::string& title, const std::string& x_title,
                      const std::string& y_title, const std::vector<std::string>& groups,
                      const std::vector<Bars>& series) {
  double most = 0;
  for (const Bars& bars : series) {
    for (const auto& value : bars.values) most = std::max(most, value.value_or(0));
  }
  if (most <= 0) most = 1;
  const double step = step_of(most), top = step * std::ceil(most / step - 1e-9);
  const double bars_width = kBar * static_cast<double>(series.size());
  const auto count = static_cast<double>(std::max<size_t>(1, groups.size()));
  double group_width = std::max(bars_width + kGap, kLeast / count);
  for (const std::string& group : groups) {
    group_width = std::max(group_width, kLetter * static_cast<double>(group.size()) + kGap);
  }
  const double right = kBarsLeft + group_width * count, base = kBarsHeight - kBarsBottom;
  std::ostringstream svg;
  double longest = 0;  // name
  for (const Bars& bars : series) longest = std::max(longest, kLetter * bars.name.size());
  svg << begin_svg(right + kLegend + longest, kBarsHeight, kBarsLeft, title);
  draw_scale(svg, right, step, top);
  svg << "<text transform='translate(16," << (kBarsTop + base) / 2
      << ") rotate(-90)' text-anchor='middle'>" << svg_text(y_title) << "</text>\n<text x='"
      << (kBarsLeft + right) / 2 << "' y='" << kBarsHeight - 10 << "' text-anchor='middle'>"
      << svg_text(x_title) << "</text>\n";
  for (size_t group = 0; group < groups.size(); ++group) {
    const double middle = kBarsLeft + group_width * (static_cast<double>(group) + 0.5);
    const double x = middle - bars_width / 2;
    for (size_t i = 0; i < series.size(); ++i) {
      draw_bar(svg, x + kBar * static_cast<double>(i), series[i].values.at(group), top, i);
    }
    svg << "<text x='" << middle << "' y='" << base + 18 << "' text-anchor='middle'>"
        << svg_text(groups[group]) << "</text>\n";
  }
  for (size_t i = 0; i < series.size(); ++i) {
    svg << legend_line(right + 12, kBarsTop + 18.0 * static_cast<double>(i), i, series[i].name);
  }
  svg << "</svg>\n";
  return svg.str();
}

}  // namespace nanoflex
