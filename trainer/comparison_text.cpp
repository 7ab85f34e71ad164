// A comparison as text, Markdown and JSON.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>
#include <string_view>

#include "trainer/comparison.h"

namespace nanoflex {
namespace {

using nlohmann::json;

constexpr int kSchema = 1;  // of to_json's answer

std::string formatted(const char* format, int precision, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, precision, value);
  return text;
}

std::string with_decimals(double value, int decimals) {
  if (std::abs(value) >= 1e12) return formatted("%.*g", 4, value);
  std::string text = formatted("%.*f", decimals, value);
  const size_t point = std::min(text.find('.'), text.size());
  const size_t first = text[0] == '-' ? 1 : 0;
  for (size_t at = point; at > first + 3;) text.insert(at -= 3, 1, ',');
  return text;
}

std::string shown_or_dash(const std::optional<json>& value) { return value ? shown(*value) : "-"; }

using Table = std::vector<std::vector<std::string>>;  // rows of cells, the first row its heading

Table numbers_table(const Comparison& comparison) {
  Table table{{"run", "attention"}};
  for (const auto& metric : kMetrics) table[0].push_back(metric.title);
  for (const auto& row : comparison.rows) {
    const bool finished = row.status == "finished";
    auto& cells = table.emplace_back();
    cells = {finished ? row.label : row.label + " [" + row.status + "]", row.backend};
    for (size_t i = 0; i < kMetrics.size(); ++i) {
      const auto& [value, ratio] = row.numbers[i];
      const Metric& metric = kMetrics[i];
      std::string cell = value ? with_decimals(*value / metric.unit, metric.decimals) : "-";
      if (ratio && comparison.rows.size() > 1)
        cell += " (" + with_decimals(*ratio, metric.ratio_decimals) + "x)";
      cells.push_back(cell);
    }
  }
  return table;
}

std::string verdict(const SeedGroup::Number& number, const Metric& metric) {
  if (!number.ratio) return "";
  std::string text = " (" + with_decimals(*number.ratio, metric.ratio_decimals) + "x";
  if (!number.test) return text + ", too few seeds to say)";
  const std::string p = formatted("%.*g", 2, number.test->p);
  return text + (number.test->p < kSignificant ? ", p " : ", no significant difference, p ") + p +
         ")";
}

// Means over seeds; no rows where no two runs differ in their seed alone.
Table groups_table(const Comparison& comparison) {
  if (comparison.groups.empty()) return {};
  Table table{{"mean over seeds", "seeds"}};
  for (const Metric& metric : kMetrics) table[0].push_back(metric.title);
  for (const SeedGroup& group : comparison.groups) {
    auto& cells = table.emplace_back();
    cells = {group.label, std::to_string(group.runs)};
    for (size_t i = 0; i < kMetrics.size(); ++i) {
      const Metric& metric = kMetrics[i];
      const Sample& sample = group.numbers[i].sample;
      std::string cell = "-";
      if (sample.count > 0) cell = with_decimals(sample.mean / metric.unit, metric.decimals);
      if (sample.count > 1) {
        cell += " +- " + with_decimals(sample.deviation / metric.unit, metric.decimals);
      }
      if (&group != &comparison.groups[0]) cell += verdict(group.numbers[i], metric);
      cells.push_back(cell);
    }
  }
  return table;
}

Table keys_table(const Comparison& comparison) {
  Table table{{"config key"}};
  for (const auto& row : comparison.rows) table[0].push_back(row.label);
  for (const auto& [key, values] : comparison.differing_keys) {
    auto& cells = table.emplace_back();
    cells = {key};
    for (const auto& value : values) cells.push_back(shown_or_dash(value));
  }
  return table;
}

std::string milliseconds(const json& seconds) {
  return seconds.is_number() ? with_decimals(1e3 * seconds.get<double>(), 2) : "-";
}

std::string count(const json& number) {
  return number.is_number() ? with_decimals(number.get<double>(), 0) : "-";
}

std::string held(const json& profile) {
  if (!profile.contains("queries_by_keys_tensor")) return "-";
  const json& made = profile["queries_by_keys_tensor"];
  return made.is_null() ? "no" : "yes: " + shown(made);
}

// A column for each run that was profiled; no rows where none was.
Table profile_table(const Comparison& comparison) {
  std::vector<const ComparisonRow*> profiled;
  std::set<std::string> parts;
  for (const ComparisonRow& row : comparison.rows) {
    if (!row.profile.is_object()) continue;
    profiled.push_back(&row);
    const json timed = row.profile.value("parts", json::object());
    for (const auto& [name, seconds] : timed.items()) parts.insert(name);
  }
  if (profiled.empty()) return {};
  Table table{{"profile of a step"}};
  const auto add = [&](const std::string& name, const auto& cell_of) {
    auto& cells = table.emplace_back();
    cells = {name};
    for (const ComparisonRow* row : profiled) cells.push_back(cell_of(row->profile));
  };
  for (const ComparisonRow* row : profiled) table[0].push_back(row->label);
  add("ms, under the profiler",
      [](const json& p) { return milliseconds(p.value("seconds_per_step", json())); });
  for (const std::string& part : parts) {
    add("ms of " + printable(part), [&](const json& p) {
      return milliseconds(p.value("parts", json::object()).value(part, json()));
    });
  }
  add("launches", [](const json& p) { return count(p.value("launches_per_step", json())); });
  add("queries x keys tensor held", held);
  add("fewer launches than vanilla",
      [](const json& p) { return count(p.value("fewer_operations", json())); });
  return table;
}

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

std::string escaped(const std::string& text) {
  std::string markdown;
  for (const char letter : text) {
    if (std::string_view("\\|`*<[]").find(letter) != std::string_view::npos) markdown += '\\';
    markdown += letter;
  }
  return markdown;
}

std::string markdown_table(const Table& table, size_t left_columns) {
  std::string text;
  for (size_t row = 0; row < table.size(); ++row) {
    for (const auto& cell : table[row]) text += "| " + escaped(cell) + " ";
    text += "|\n";
    for (size_t i = 0; row == 0 && i < table[0].size(); ++i)
      text += i < left_columns ? "|---" : "|---:";
    if (row == 0) text += "|\n";
  }
  return text;
}

json json_or_null(const std::optional<double>& value) { return value ? json(*value) : json(); }

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
  std::string text = markdown_table(numbers_table(comparison), 2);
  for (const auto& warning : comparison.warnings)
    text += "\n**Warning:** " + escaped(warning) + '\n';
  for (const Table& table : {groups_table(comparison), profile_table(comparison)}) {
    if (!table.empty()) text += '\n' + markdown_table(table, 1);
  }
  if (comparison.rows.size() < 2) return text;
  if (comparison.differing_keys.empty()) return text + "\nNo config key differs.\n";
  return text + '\n' + markdown_table(keys_table(comparison), comparison.rows.size() + 1);
}

std::string to_json(const Comparison& comparison) {
  json runs = json::array(), keys = json::array();
  for (const auto& row : comparison.rows) {
    json& run = runs.emplace_back(json{
        {"id", row.label}, {"path", row.path}, {"status", row.status}, {"attention", row.backend}});
    for (size_t i = 0; i < kMetrics.size(); ++i)
      run[kMetrics[i].name] = {{"value", json_or_null(row.numbers[i].value)},
                               {"ratio", json_or_null(row.numbers[i].ratio)}};
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
    json& one = groups.emplace_back(json{{"id", group.label}, {"seeds", group.runs}});
    for (size_t i = 0; i < kMetrics.size(); ++i) {
      const auto& [sample, ratio, test] = group.numbers[i];
      one[kMetrics[i].name] = {{"count", sample.count},
                               {"mean", sample.count > 0 ? json(sample.mean) : json()},
                               {"deviation", sample.count > 1 ? json(sample.deviation) : json()},
                               {"ratio", json_or_null(ratio)},
                               {"p", test ? json(test->p) : json()}};
    }
  }
  const json all = {{"schema", kSchema},
                    {"runs", runs},
                    {"groups", groups},
                    {"differing_keys", keys},
                    {"warnings", comparison.warnings}};
  return all.dump(2, ' ', false, json::error_handler_t::replace) + '\n';
}

}  // namespace nanoflex
