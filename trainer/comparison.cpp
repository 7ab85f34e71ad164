#include "trainer/comparison.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>
#include <string_view>

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

std::string general(double value) { return formatted("%.*g", 4, value); }

// --- comparing --------------------------------------------------------------------------------

using Flat = std::map<std::string, json>;

// {"model": {"n_layer": 4}} -> {"model.n_layer": 4}
void flatten(const json& value, const std::string& prefix, Flat& flat) {
  if (!value.is_object() || value.empty()) {
    flat[prefix] = value;
    return;
  }
  for (const auto& [key, inner] : value.items())
    flatten(inner, prefix.empty() ? key : prefix + "." + key, flat);
}

std::optional<json> look_up(const Flat& flat, const std::string& key) {
  const auto found = flat.find(key);
  return found == flat.end() ? std::nullopt : std::optional<json>(found->second);
}

std::vector<DifferingKey> differing_keys(const std::vector<Flat>& configs) {
  std::set<std::string> keys;
  for (const auto& config : configs)
    for (const auto& [key, value] : config) keys.insert(key);
  keys.erase("output.run_id");
  std::vector<DifferingKey> differing;
  for (const auto& key : keys) {
    DifferingKey row{printable(key), {}};
    for (const auto& config : configs) row.values.push_back(look_up(config, key));
    const auto differs = [&](const auto& value) { return value != row.values.front(); };
    if (std::any_of(row.values.begin(), row.values.end(), differs)) differing.push_back(row);
  }
  return differing;
}

std::string shown_or_dash(const std::optional<json>& value) { return value ? shown(*value) : "-"; }

struct Budget {
  std::optional<double> target_flops, flops, flops_per_step;

  std::string text() const {
    std::string words = flops ? general(*flops) + " FLOPs" : "an unknown number of FLOPs";
    if (target_flops) words += " (target " + general(*target_flops) + ")";
    return words;
  }
};

Budget budget_of(const RunSummary& run, const Flat& config) {
  Budget budget;
  budget.flops_per_step = run.flops_per_step;
  const auto target = look_up(config, "budget.target_flops");
  if (target && target->is_number()) budget.target_flops = target->get<double>();
  if (run.flops_per_step && run.steps) budget.flops = *run.flops_per_step * *run.steps;
  return budget;
}

bool same(const Budget& a, const Budget& b) {
  if (a.target_flops && b.target_flops && a.target_flops != b.target_flops) return false;
  if (a.flops.has_value() != b.flops.has_value()) return false;
  if (!a.flops) return true;
  // Steps are whole: one target is overshot by less than a step, whose size may differ.
  const double slack =
      a.target_flops && b.target_flops ? std::max(*a.flops_per_step, *b.flops_per_step) : 0;
  return a.flops == b.flops || std::abs(*a.flops - *b.flops) < slack;
}

std::string model_difference(const std::vector<DifferingKey>& differing, size_t run) {
  std::string text;
  for (const auto& [key, values] : differing) {
    if (key != "model" && !key.starts_with("model.")) continue;
    if (values[run] == values[0]) continue;
    text += (text.empty() ? "" : ", ") + key + " " + shown_or_dash(values[run]) + " against " +
            shown_or_dash(values[0]);
  }
  return text;
}

std::vector<std::string> labels_of(const std::vector<RunSummary>& runs) {
  std::map<std::string, int> uses;
  for (const auto& run : runs) ++uses[run.id];
  std::vector<std::string> labels;
  for (const auto& run : runs)
    labels.push_back(uses[run.id] > 1 ? printable(run.path.string()) : run.id);
  return labels;
}

ComparisonRow row_of(const RunSummary& run, const RunSummary& first, const std::string& label) {
  ComparisonRow row{label, printable(run.path.string()), run.status, run.backend, {}, run.profile};
  for (size_t i = 0; i < kMetrics.size(); ++i) {
    const auto value = run.*kMetrics[i].value, base = first.*kMetrics[i].value;
    row.numbers[i].value = value;
    if (value && base && std::isfinite(*value / *base)) row.numbers[i].ratio = *value / *base;
  }
  return row;
}

// --- rendering --------------------------------------------------------------------------------

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

Comparison compare(const std::vector<RunSummary>& runs) {
  Comparison comparison;
  const auto labels = labels_of(runs);
  std::vector<Flat> configs(runs.size());
  for (size_t i = 0; i < runs.size(); ++i) {
    flatten(runs[i].config, "", configs[i]);
    comparison.rows.push_back(row_of(runs[i], runs[0], labels[i]));
  }
  comparison.differing_keys = differing_keys(configs);
  auto& warnings = comparison.warnings;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].status != "finished")
      warnings.push_back(labels[i] + " is not finished but " + runs[i].status);
    const Budget budget = budget_of(runs[i], configs[i]), first = budget_of(runs[0], configs[0]);
    if (!same(budget, first))
      warnings.push_back("different budgets: " + labels[i] + " has " + budget.text() + ", " +
                         labels[0] + " has " + first.text());
    const std::string models = model_difference(comparison.differing_keys, i);
    if (!models.empty())
      warnings.push_back("different models: " + labels[i] + " against " + labels[0] + ": " +
                         models);
  }
  return comparison;
}

std::string to_text(const Comparison& comparison) {
  std::string text = aligned(numbers_table(comparison), 2);
  if (!comparison.warnings.empty()) text += '\n';
  for (const auto& warning : comparison.warnings) text += "warning: " + warning + '\n';
  const Table profiles = profile_table(comparison);
  if (!profiles.empty()) text += '\n' + aligned(profiles, 1);
  if (comparison.rows.size() < 2) return text;
  if (comparison.differing_keys.empty()) return text + "\nno config key differs\n";
  return text + '\n' + aligned(keys_table(comparison), comparison.rows.size() + 1);
}

std::string to_markdown(const Comparison& comparison) {
  std::string text = markdown_table(numbers_table(comparison), 2);
  for (const auto& warning : comparison.warnings)
    text += "\n**Warning:** " + escaped(warning) + '\n';
  const Table profiles = profile_table(comparison);
  if (!profiles.empty()) text += '\n' + markdown_table(profiles, 1);
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
  const json all = {{"schema", kSchema},
                    {"runs", runs},
                    {"differing_keys", keys},
                    {"warnings", comparison.warnings}};
  return all.dump(2, ' ', false, json::error_handler_t::replace) + '\n';
}

}  // namespace nanoflex
