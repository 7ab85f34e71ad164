#include "trainer/report/html.h"

#include <string_view>

namespace nanoflex {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

std::string valid_utf8(const std::string& text) {
  using nlohmann::json;
  return json::parse(json(text).dump(-1, ' ', false, json::error_handler_t::replace))
      .get<std::string>();
}

// RFC 4648.
std::string base64(const std::string& bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t begin = 0; begin < bytes.size(); begin += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - begin);
    uint32_t group = 0;
    for (size_t i = 0; i < 3; ++i)
      group = group << 8 | (i < count ? static_cast<uint8_t>(bytes[begin + i]) : 0U);
    for (size_t i = 0; i < 4; ++i) text += i <= count ? kDigits[group >> (18 - 6 * i) & 63] : '=';
  }
  return text;
}

std::string html_row(const std::vector<std::string>& cells, const std::string& tag,
                     size_t left_columns) {
  std::string row = "<tr>";
  for (size_t i = 0; i < cells.size(); ++i) {
    const std::string kind = i < left_columns ? "" : " class=\"number\"";
    row += "<" + tag + kind + ">" + html_text(cells[i]) + "</" + tag + ">";
  }
  return row + "</tr>\n";
}

}  // namespace

std::string html_text(const std::string& text) {
  std::string result;
  for (const char c : valid_utf8(text)) {
    const bool control =
        (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7f;
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        control ? result += kReplacement : result += c;
    }
  }
  return result;
}

std::string html_json(const nlohmann::json& value) {
  std::string result;
  for (const char c :
       value.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace)) {
    // Outside of strings JSON has none of these.
    c == '<' ? result += "\\u003c" : c == '>' ? result += "\\u003e" : result += c;
  }
  return result;
}

std::string html_table(const std::vector<std::vector<std::string>>& rows, size_t left_columns) {
  if (rows.empty()) return "";
  std::string table = "<div class=\"scroll\" tabindex=\"0\"><table>\n";
  if (!rows[0].empty()) table += "<thead>" + html_row(rows[0], "th", left_columns) + "</thead>\n";
  table += "<tbody>\n";
  for (size_t i = 1; i < rows.size(); ++i) table += html_row(rows[i], "td", left_columns);
  return table + "</tbody></table></div>\n";
}

std::string html_picture(const std::string& png, const std::string& description) {
  return "<img alt=\"" + html_text(description) + "\" src=\"data:image/png;base64," + base64(png) +
         "\">";
}

}  // namespace nanoflex
