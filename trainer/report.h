#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "trainer/report/record.h"

namespace nanoflex {

/// Indented JSON; bytes that are no UTF-8 (of a path, say) become U+FFFD.
std::string dumped(const nlohmann::ordered_json& value);

/// A run on one page of Markdown.
std::string markdown_report(const nlohmann::json& summary);

/// A run on one page of HTML that needs nothing but itself: headline numbers, curves, the mask as a
/// picture, samples, the profile, config and environment; all texts escaped. What the record lacks
/// is left out, or shown as "–".
std::string html_report(const FullRecord& record);

}  // namespace nanoflex
