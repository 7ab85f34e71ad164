// A comparison as text, Markdown and JSON.
#include <algorithm>

#include "trainer/comparison.h"
#include "trainer/comparison_tables.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::json;

constexpr int kComparisonSchema = 1;  // of to_json's answer

size_t width(const std::string& text) {  // in characters: UTF-8's continuation bytes take no room
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

std::string aligned(const Table& table, size_t left_columns) {
  std::vector<size_t> widths(table[0].size());
  for (const auto& row : table)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  std::string text;
  for (const auto& row : table) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string pad(widths[i] - width(row[i]), ' ');
      text += (i == 0 ? "" : "  ") + (i < left_columns ? row[i] + pad : pad + row[i]);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
  }
  return text;
}

// Names and keys are texts, not markup.
std::string as_markdown(Table table, size_t left_columns) {
  for (auto& row : table) {
    for (std::string& cell : row) cell = markdown_text(cell);
  }
  return markdown_table(table, left_columns);
}

}  // namespace

std::string to_text(const Comparison& comparison) {
  std::string text = aligned(numbers_table(comparison), 2);
  if (!comparison.warnings.empty()) text += '\n';
  for (const auto& warning : comparison.warnings) text += "warning: " + warning + '\n';
  for (const Table& table : {groups_table(comparison), profile_table(comparison)}) {
    if (!table.empty()) text += '\n' + aligned(table, 1);
  }
  if (comparison.rows.size() < 2) return text;
  if (comparison.differing_keys.empty()) return text + "\nno config key differs\n";
  return text + '\n' + aligned(keys_table(comparison), comparison.rows.size() + 1);
}

std::string to_markdown(const Comparison& comparison) {
  std::string text = as_markdown(numbers_table(comparison), 2);
  for (const auto& warning : comparison.warnings)
    text += "\n**Warning:** " + markdown_text(warning) + '\n';
  for (const Table& table : {groups_table(comparison), profile_table(comparison)}) {
    if (!table.empty()) text += '\n' + as_markdown(table, 1);
  }
  if (comparison.rows.size() < 2) return text;
  if (comparison.differing_keys.empty()) return text + "\nNo config key differs.\n";
  return text + '\n' + as_markdown(keys_table(comparison), comparison.rows.size() + 1);
}

std::string to_json(const Comparison& comparison) {
  json runs = json::array(), keys = json::array();
  for (const auto& row : comparison.rows) {
    json& run = runs.emplace_back(json{
        {"id", row.label}, {"path", row.path}, {"status", row.status}, {"attention", row.backend}});
    for (size_t i = 0; i < kMetrics.size(); ++i)
      run[kMetrics[i].name] = {{"value", or_null(row.numbers[i].value)},
                               {"ratio", or_null(row.numbers[i].ratio)}};
    run["profile"] = row.profile;
  }
  for (const auto& [key, values] : comparison.differing_keys) {
    json by_run = json::object();
    for (size_t i = 0; i < values.size(); ++i)
      if (values[i]) by_run[comparison.rows[i].label] = *values[i];
    keys.push_back({{"key", key}, {"values", by_run}});
  }
  json groups = json::array();
  for (const SeedGroup& group : comparison.groups) {
    json& one = groups.emplace_back(json{{"id", group.label}, {"seeds", group.seeds}});
    for (size_t i = 0; i < kMetrics.size(); ++i) {
      const auto& [sample, ratio, test] = group.numbers[i];
      one[kMetrics[i].name] = {{"count", sample.count},
                               {"mean", sample.count > 0 ? json(sample.mean) : json()},
                               {"deviation", sample.count > 1 ? json(sample.deviation) : json()},
                               {"ratio", or_null(ratio)},
                               {"p", test ? json(test->p) : json()}};
    }
  }
  const json all = {{"schema", kComparisonSchema},
                    {"runs", runs},
                    {"groups", groups},
                    {"differing_keys", keys},
                    {"warnings", comparison.warnings}};
  return all.dump(2, ' ', false, json::error_handler_t::replace) + '\n';
}

}  // namespace nanoflex
