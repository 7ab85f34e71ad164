#include "trainer/markdown.h"

#include <string_view>

namespace nanoflex {
namespace {

std::string line_of(const std::vector<std::string>& cells) {
  std::string line = "|";
  for (const std::string& cell : cells) line += " " + cell + " |";
  return line + "\n";
}

}  // namespace

std::string markdown_text(const std::string& text) {
  std::string markdown;
  for (const char letter : text) {
    if (std::string_view("\\|`*<[]").find(letter) != std::string_view::npos) markdown += '\\';
    markdown += letter;
  }
  return markdown;
}

std::string markdown_table(const Table& table, size_t text_columns) {
  std::string page = line_of(table.at(0)) + "|";
  for (size_t i = 0; i < table[0].size(); ++i) page += i < text_columns ? "---|" : "---:|";
  page += "\n";
  for (size_t row = 1; row < table.size(); ++row) page += line_of(table[row]);
  return page;
}

}  // namespace nanoflex
