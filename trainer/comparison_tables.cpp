#include "trainer/comparison_tables.h"

#include <set>

#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::json;

std::string verdict(const SeedGroup::Number& number, const Sample& first, const Metric& metric) {
  if (!number.ratio) return "";
  std::string text = " (" + with_decimals(*number.ratio, metric.ratio_decimals) + "x";
  if (!number.test) {
    const bool few = number.sample.count < 2 || first.count < 2;
    return text + (few ? ", too few seeds to say)" : ", the same for all seeds)");
  }
  const std::string p = with_digits(number.test->p, 2);
  return text + (number.test->p < kSignificant ? ", p " : ", no significant difference, p ") + p +
         ")";
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

}  // namespace

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

Table groups_table(const Comparison& comparison) {
  if (comparison.groups.empty()) return {};
  Table table{{"mean over seeds", "seeds"}};
  for (const Metric& metric : kMetrics) table[0].push_back(metric.title);
  for (const SeedGroup& group : comparison.groups) {
    auto& cells = table.emplace_back();
    cells = {group.label, std::to_string(group.seeds)};
    for (size_t i = 0; i < kMetrics.size(); ++i) {
      const Metric& metric = kMetrics[i];
      const Sample& sample = group.numbers[i].sample;
      std::string cell = "-";
      if (sample.count > 0) cell = with_decimals(sample.mean / metric.unit, metric.decimals);
      if (sample.count > 1) {
        cell += " +- " + with_decimals(sample.deviation / metric.unit, metric.decimals);
      }
      if (&group != &comparison.groups[0])
        cell += verdict(group.numbers[i], comparison.groups[0].numbers[i].sample, metric);
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

}  // namespace nanoflex
