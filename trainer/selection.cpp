#include "trainer/selection.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>
#include <stdexcept>

#include "attention/nearest.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::json;

struct Condition {
  std::string key, value, text;
  bool equal;
};

Condition parse_condition(const std::string& text) {
  const size_t sign = text.find('=');
  const bool equal = sign != std::string::npos && (sign == 0 || text[sign - 1] != '!');
  if (sign == std::string::npos || (equal ? sign : sign - 1) == 0) {
    throw std::invalid_argument("[compare] --where must be KEY=VALUE or KEY!=VALUE, is '" +
                                printable(text) + "'");
  }
  return {text.substr(0, equal ? sign : sign - 1), text.substr(sign + 1), text, equal};
}

// The value of `key` in a run; empty where the run has none.
std::optional<json> value_of(const RunSummary& run, const std::string& key) {
  if (key == "status") return run.status;
  if (key == "id") return run.id;
  if (!run.config.is_object()) return std::nullopt;
  for (const auto& [section, keys] : run.config.items()) {
    if (!keys.is_object()) continue;
    for (const auto& [name, value] : keys.items()) {
      if (key == name || key == section + "." + name) return value;
    }
  }
  return std::nullopt;
}

// Whether the text says the value: a number however it is written, 2e12 or 2e+12.
bool says(const std::string& text, const json& value) {
  if (value.is_string()) return text == value.get<std::string>();
  if (value.is_number()) {
    double number = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    return error == std::errc() && stop == end && number == value.get<double>();
  }
  return text == value.dump();
}

size_t metric_named(const std::string& name, const std::string& flag) {
  std::vector<std::string> names;
  for (size_t i = 0; i < kMetrics.size(); ++i) {
    if (name == kMetrics[i].name) return i;
    names.emplace_back(kMetrics[i].name);
  }
  throw std::invalid_argument("[compare] " + flag + " must name one of " + join(names) + "; is '" +
                              printable(name) + "'");
}

bool holds(double ratio, const std::string& comparison, double bound) {
  if (comparison == "<") return ratio < bound;
  if (comparison == "<=") return ratio <= bound;
  if (comparison == ">") return ratio > bound;
  return ratio >= bound;
}

}  // namespace

std::vector<RunSummary> where(std::vector<RunSummary> runs,
                              const std::vector<std::string>& conditions) {
  for (const std::string& text : conditions) {
    const Condition condition = parse_condition(text);
    const auto has_key = [&](const RunSummary& run) {
      return value_of(run, condition.key).has_value();
    };
    if (std::none_of(runs.begin(), runs.end(), has_key)) {
      throw std::invalid_argument("[compare] --where " + printable(text) + ": no run has a key '" +
                                  printable(condition.key) + "'");
    }
    std::erase_if(runs, [&](const RunSummary& run) {
      const std::optional<json> value = value_of(run, condition.key);
      return (value && says(condition.value, *value)) != condition.equal;
    });
    if (runs.empty()) {
      throw std::invalid_argument("[compare] no run is left by --where " + printable(text));
    }
  }
  return runs;
}

std::vector<RunSummary> sorted_by(std::vector<RunSummary> runs, const std::string& name) {
  const Metric& metric = kMetrics[metric_named(name, "--sort")];
  std::stable_sort(runs.begin(), runs.end(), [&](const RunSummary& a, const RunSummary& b) {
    const auto left = a.*metric.value, right = b.*metric.value;
    if (!left || !right) return left.has_value() && !right.has_value();
    return metric.more_is_better ? *left > *right : *left < *right;
  });
  return runs;
}

FailureRule parse_failure_rule(const std::string& text) {
  std::istringstream in(text);
  std::string metric, comparison, bound, rest;
  in >> metric >> comparison >> bound;
  const bool known =
      comparison == "<" || comparison == "<=" || comparison == ">" || comparison == ">=";
  double number = 0;
  size_t read = 0;
  try {
    number = std::stod(bound, &read);
  } catch (const std::exception&) {
    read = 0;
  }
  if (!known || in >> rest || read == 0 || read != bound.size() || !std::isfinite(number)) {
    throw std::invalid_argument(
        "[compare] --fail-if must be NUMBER_NAME, one of < <= > >=, and a ratio to the first run, "
        "such as \"tokens_per_second < 0.97\"; is '" +
        printable(text) + "'");
  }
  return {metric_named(metric, "--fail-if"), comparison, number, text};
}

std::vector<std::string> failures(const Comparison& comparison, const FailureRule& rule) {
  std::vector<std::string> lines;
  if (const ComparisonRow& first = comparison.rows.at(0); first.status != "finished") {
    lines.push_back(first.label + ", which the others are held against, is not finished but " +
                    first.status);
  }
  for (size_t i = 1; i < comparison.rows.size(); ++i) {
    const ComparisonRow& row = comparison.rows[i];
    const auto ratio = row.numbers[rule.metric].ratio;
    if (row.status != "finished") {
      lines.push_back(row.label + ": is not finished but " + row.status);
      continue;
    }
    if (ratio && !holds(*ratio, rule.comparison, rule.bound)) continue;
    std::ostringstream line;
    line.precision(4);
    line << row.label << ": " << kMetrics[rule.metric].name << " is ";
    if (ratio) {
      line << *ratio << " of " << comparison.rows[0].label << "'s";
    } else {
      line << "not known of both runs";
    }
    line << ", which fails '" << printable(rule.text) << "'";
    lines.push_back(line.str());
  }
  return lines;
}

}  // namespace nanoflex
