// Texts, tables and data as they may stand in a page.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace nanoflex {

/// Any text, shown as it is: nothing in it is markup, in an element or a quoted attribute. Bytes
/// that are no UTF-8, and control characters, become U+FFFD.
std::string html_text(const std::string& text);

/// JSON in ASCII that may stand in a <script>: nothing in it ends the element or begins a comment.
/// Numbers that JSON lacks (NaN) become null.
std::string html_json(const nlohmann::json& value);

/// A table that scrolls by itself where the page is narrow. The first of `rows` is the heading,
/// which may be empty; the first `left_columns` are texts, the others numbers. Cells are escaped
/// here.
std::string html_table(const std::vector<std::vector<std::string>>& rows, size_t left_columns);

/// A PNG file's bytes as a picture in the page itself.
std::string html_picture(const std::string& png, const std::string& description);

}  // namespace nanoflex
