// Tables in Markdown.
#pragma once

#include <string>
#include <vector>

namespace nanoflex {

using Table = std::vector<std::vector<std::string>>;  ///< rows of cells, the first its heading

/// Any text as a cell: nothing in it is markup.
std::string markdown_text(const std::string& text);

/// The first `text_columns` are texts, the others numbers, aligned at the right. Cells are
/// Markdown.
std::string markdown_table(const Table& table, size_t text_columns);

}  // namespace nanoflex
