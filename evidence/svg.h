// What all charts share: a page that is readable in print and in dark mode, and colours.
#pragma once

#include <cstddef>
#include <string>

namespace nanoflex {

/// A colour of a series, distinct from the others without colour vision, on white and on black.
const char* series_colour(size_t index);

/// Text as it may stand in SVG.
std::string svg_text(const std::string& text);

/// A number with three digits, or all of a whole one, and never an exponent above 999.
std::string plain_number(double value);

/// The beginning of a standalone SVG of that size, with its style and title; "</svg>\n" ends it.
std::string begin_svg(double width, double height, double left, const std::string& title);

/// A line of the legend: a square of the series' colour and its name.
std::string legend_line(double x, double y, size_t index, const std::string& name);

}  // namespace nanoflex
