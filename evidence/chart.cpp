#include "evidence/chart.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "evidence/svg.h"

namespace nanoflex {
namespace {

constexpr double kWidth = 640, kChartHeight = 400, kChartLeft = 70, kRight = 150, kChartTop = 40,
                 kChartBottom = 50;

struct Axis {
  double low, high;  // exponents
  double begin, end;
  double base;

  double at(double value) const {
    const double share = (std::log(value) / std::log(base) - low) / (high - low);
    return begin + share * (end - begin);
  }
};

Axis axis(const std::vector<double>& values, double base, double begin, double end) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  const double low = std::floor(std::log(*least) / std::log(base) + 1e-9);
  const double high = std::ceil(std::log(*most) / std::log(base) - 1e-9);
  return {low, high > low ? high : low + 1, begin, end, base};
}

// Powers of two from 1,024 on as 1k, 2k ...
std::string number(double value) {
  const bool binary = value >= 1000 && std::fmod(value, 1024) == 0;
  return binary ? plain_number(value / 1024) + "k" : plain_number(value);
}

void draw_axes(std::ostringstream& svg, const Axis& x, const Axis& y) {
  for (double exponent = x.low; exponent <= x.high; ++exponent) {
    const double value = std::pow(x.base, exponent), at = x.at(value);
    svg << "<line class='grid' x1='" << at << "' x2='" << at << "' y1='" << y.begin << "' y2='"
        << y.end << "'/><text x='" << at << "' y='" << y.begin + 18 << "' text-anchor='middle'>"
        << number(value) << "</text>\n";
  }
  for (double exponent = y.low; exponent <= y.high; ++exponent) {
    const double value = std::pow(y.base, exponent), at = y.at(value);
    svg << "<line class='grid' x1='" << x.begin << "' x2='" << x.end << "' y1='" << at << "' y2='"
        << at << "'/><text x='" << x.begin - 8 << "' y='" << at + 4 << "' text-anchor='end'>"
        << number(value) << "</text>\n";
  }
}

}  // namespace

std::string log_chart(const std::string& title, const std::string& x_title,
                      const std::string& y_title, const std::vector<Series>& series) {
  std::vector<double> xs, ys;
  for (const Series& line : series) {
    for (const auto& [x, y] : line.points) xs.push_back(x), ys.push_back(y);
  }
  if (xs.empty()) xs = ys = {1, 2};
  const Axis x = axis(xs, 2, kChartLeft, kWidth - kRight);
  const auto [least, most] = std::minmax_element(ys.begin(), ys.end());
  const Axis y = axis(ys, *most / *least > 100 ? 10 : 2, kChartHeight - kChartBottom, kChartTop);
  std::ostringstream svg;
  svg << begin_svg(kWidth, kChartHeight, kChartLeft, title);
  draw_axes(svg, x, y);
  svg << "<text x='" << (x.begin + x.end) / 2 << "' y='" << kChartHeight - 10
      << "' text-anchor='middle'>" << svg_text(x_title) << "</text>\n<text transform='translate(16,"
      << (y.begin + y.end) / 2 << ") rotate(-90)' text-anchor='middle'>" << svg_text(y_title)
      << "</text>\n";
  for (size_t i = 0; i < series.size(); ++i) {
    const char* colour = series_colour(i);
    svg << "<polyline fill='none' stroke='" << colour << "' stroke-width='2' points='";
    for (const auto& [px, py] : series[i].points) svg << x.at(px) << "," << y.at(py) << " ";
    svg << "'/>\n";
    for (const auto& [px, py] : series[i].points) {
      svg << "<circle r='3' fill='" << colour << "' cx='" << x.at(px) << "' cy='" << y.at(py)
          << "'/>";
    }
    svg << "\n"
        << legend_line(x.end + 12, kChartTop + 18.0 * static_cast<double>(i), i, series[i].name);
  }
  svg << "</svg>\n";
  return svg.str();
}

}  // namespace nanoflex
