#include "trainer/comparison.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::json;

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

struct ComparedBudget {
  std::optional<double> target_flops, flops, flops_per_step;

  std::string text() const {
    std::string words = flops ? with_digits(*flops, 4) + " FLOPs" : "an unknown number of FLOPs";
    if (target_flops) words += " (target " + with_digits(*target_flops, 4) + ")";
    return words;
  }
};

ComparedBudget budget_of(const RunSummary& run, const Flat& config) {
  ComparedBudget budget;
  budget.flops_per_step = run.flops_per_step;
  const auto target = look_up(config, "budget.target_flops");
  if (target && target->is_number()) budget.target_flops = target->get<double>();
  budget.flops = run.flops;
  return budget;
}

bool same(const ComparedBudget& a, const ComparedBudget& b) {
  if (a.target_flops && b.target_flops && a.target_flops != b.target_flops) return false;
  if (a.flops.has_value() != b.flops.has_value()) return false;
  if (!a.flops) return true;
  // Steps are whole: one target is overshot by less than a step, whose size may differ.
  const double slack = a.target_flops && b.target_flops
                           ? std::max(a.flops_per_step.value_or(0), b.flops_per_step.value_or(0))
                           : 0;
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

std::string identity_without_seed(const RunSummary& run, Flat config) {
  for (const char* key : {"machine.seed", "output.run_id", "output.runs_dir"}) config.erase(key);
  return run.backend + "\n" + run.code + "\n" + run.machine + "\n" +
         json(config).dump(-1, ' ', false, json::error_handler_t::replace);
}

// A run of a group and its seed.
struct Member {
  const RunSummary* run;
  std::string seed;
};

SeedGroup group_of(const std::vector<Member>& members, const std::string& label) {
  SeedGroup group{.label = label, .numbers = {}};
  std::set<std::string> all;
  for (const Member& member : members) all.insert(member.seed);
  group.seeds = all.size();
  for (size_t i = 0; i < kMetrics.size(); ++i) {
    std::vector<double> values;
    std::set<std::string> counted;
    for (const auto& [run, seed] : members) {
      const auto value = run->*kMetrics[i].value;
      if (!value || (!counted.insert(seed).second && kMetrics[i].of_seed)) continue;
      values.push_back(*value);
    }
    group.numbers[i].sample = summarize(values);
  }
  return group;
}

std::vector<SeedGroup> groups_by_seed(const std::vector<RunSummary>& runs,
                                      const std::vector<Flat>& configs,
                                      const std::vector<std::string>& labels) {
  std::map<std::string, std::vector<Member>> members;
  std::vector<std::pair<std::string, std::string>> order;  // identity, label
  size_t finished = 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].status != "finished") continue;
    ++finished;
    const std::string identity = identity_without_seed(runs[i], configs[i]);
    if (members[identity].empty()) order.emplace_back(identity, labels[i]);
    const auto seed = look_up(configs[i], "machine.seed");
    members[identity].push_back({&runs[i], seed ? seed->dump() : ""});
  }
  if (order.size() == finished) return {};
  std::vector<SeedGroup> groups;
  for (const auto& [identity, label] : order) groups.push_back(group_of(members[identity], label));
  for (SeedGroup& group : groups) {
    for (size_t i = 0; i < kMetrics.size(); ++i) {
      const Sample& first = groups[0].numbers[i].sample;
      SeedGroup::Number& own = group.numbers[i];
      const bool comparable = own.sample.count > 0 && first.count > 0 && first.mean != 0;
      if (comparable) own.ratio = own.sample.mean / first.mean;
      if (&group != &groups[0]) own.test = welch_test(own.sample, first);
    }
  }
  return groups;
}

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
  comparison.groups = groups_by_seed(runs, configs, labels);
  auto& warnings = comparison.warnings;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].status != "finished")
      warnings.push_back(labels[i] + " is not finished but " + runs[i].status);
    const ComparedBudget budget = budget_of(runs[i], configs[i]),
                         first = budget_of(runs[0], configs[0]);
    if (!same(budget, first))
      warnings.push_back("different budgets: " + labels[i] + " has " + budget.text() + ", " +
                         labels[0] + " has " + first.text());
    if (runs[i].machine != runs[0].machine)
      warnings.push_back("different machines: " + labels[i] + " ran with " + runs[i].machine +
                         "; " + labels[0] + " with " + runs[0].machine);
    const std::string models = model_difference(comparison.differing_keys, i);
    if (!models.empty())
      warnings.push_back("different models: " + labels[i] + " against " + labels[0] + ": " +
                         models);
  }
  return comparison;
}

}  // namespace nanoflex
