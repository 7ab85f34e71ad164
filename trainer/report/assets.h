#pragma once

#include <string_view>

namespace nanoflex {

/// What a page of a report carries with it, from the files beside this one and the package of
/// dygraphs; a file that is made when this is built holds them (embed.cmake).
struct PageAssets {
  std::string_view style, script, charts, charts_style, licence;
};
const PageAssets& page_assets();

}  // namespace nanoflex
