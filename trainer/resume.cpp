#include "trainer/resume.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "attention/nearest.h"
#include "trainer/progress.h"
#include "trainer/record_file.h"
#include "trainer/resolve.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// What may change between the parts of a run: where it ends, unless rates fall towards it, and what
// it tells.
constexpr const char* kSafe[] = {
    "target_flops",        "max_steps", "max_seconds", "val_interval", "log_interval",
    "checkpoint_interval", "progress",  "run_id",      "runs_dir",     "graph"};

bool is_safe(const Key& key) {
  return std::find(std::begin(kSafe), std::end(kSafe), key.name) != std::end(kSafe);
}

[[noreturn]] void refuse_to_resume(const std::string& what) {
  throw std::invalid_argument("[resume] " + what);
}

// null for one that is missing or torn, which a power cut leaves.
json read_summary(const fs::path& run) {
  const fs::path file = run / "summary.json";
  std::error_code error;
  if (!fs::exists(file, error)) return {};
  json summary;
  try {
    summary = parse_record(file);
  } catch (const json::exception&) {
    return {};
  } catch (const std::invalid_argument& problem) {
    refuse_to_resume(file.string() + ": " + problem.what());
  }
  const auto is_text = [&](const char* key) {
    return summary.is_object() && summary.contains(key) && summary[key].is_string();
  };
  const bool whole = is_text("run_id") && is_text("status");
  return whole ? summary : json();
}

// Why this checkpoint of the run cannot be used; empty when it can.
std::string problem_of(const fs::path& checkpoint, const json& summary, CheckpointState& state) {
  try {
    state = verify_checkpoint(checkpoint);
  } catch (const std::invalid_argument& problem) {
    return problem.what();
  }
  const std::string id = summary.is_object() ? summary["run_id"].get<std::string>() : state.run_id;
  return id == state.run_id ? "" : "it is of run '" + state.run_id + "', this is '" + id + "'";
}

ResumePoint open_checkpoint(const fs::path& run, const fs::path& checkpoint, ResumePoint point) {
  point.run = run;
  point.checkpoint = checkpoint;
  point.summary = read_summary(run);
  const std::string problem = problem_of(checkpoint, point.summary, point.state);
  if (problem.empty()) return point;
  const std::vector<int64_t> steps = checkpoint_steps(run);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const fs::path other = checkpoint_folder(run, *step);
    CheckpointState state;
    if (other.filename() >= checkpoint.filename()) continue;
    if (!problem_of(other, point.summary, state).empty()) continue;
    refuse_to_resume("checkpoint " + checkpoint.string() + " cannot be used: " + problem +
                     "; the one before it is good: --resume " + other.string());
  }
  refuse_to_resume("checkpoint " + checkpoint.string() + " cannot be used: " + problem +
                   "; there is no good one before it");
}

ResumePoint open_newest(const fs::path& run, ResumePoint point) {
  const std::vector<int64_t> steps = checkpoint_steps(run);
  if (steps.empty()) {
    refuse_to_resume("run " + run.string() +
                     " has no checkpoint (--checkpoint-interval makes them); " +
                     "start it again: --config " + (run / "config.yaml").string());
  }
  return open_checkpoint(run, checkpoint_folder(run, steps.back()), std::move(point));
}

bool unfinished(const fs::path& run) try {
  const json summary = read_summary(run);
  return !checkpoint_steps(run).empty() &&
         (!summary.is_object() || summary["status"] != "finished");
} catch (const std::invalid_argument&) {
  return false;  // no run wrote that
}

ResumePoint open_last_trained(const fs::path& runs_dir, ResumePoint point) {
  std::vector<std::pair<fs::file_time_type, fs::path>> runs;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(runs_dir, error)) {
    const auto trained = fs::last_write_time(entry.path() / "metrics.jsonl", error);
    if (!error && unfinished(entry.path())) runs.emplace_back(trained, entry.path());
  }
  std::sort(runs.rbegin(), runs.rend());
  for (const auto& run : runs) {
    const auto lock = RunLock::try_take(run.second);
    if (!lock) continue;  // it is training
    if (!point.branch) point.lock = lock;
    return open_newest(run.second, std::move(point));
  }
  refuse_to_resume("auto: no run below " + runs_dir.string() +
                   " has a checkpoint and has not finished; name a run, or another --runs-dir");
}

std::string quoted(const Config& config, const Key& key) {
  const json value = key_json(config, key);
  return value.is_string() ? "'" + value.get<std::string>() + "'" : key_text(config, key);
}

// learning_rate stands for the rates that it sets as well. `falls`: rates do, towards the end.
bool may_change(const Key& key, const std::vector<std::string>& allowed, bool falls) {
  const auto named = [&](const std::string& name) {
    return std::find(allowed.begin(), allowed.end(), name) != allowed.end();
  };
  const bool ends = key.name == "target_flops" || key.name == "max_steps";
  return (is_safe(key) && !(falls && ends)) || named(key.name) ||
         (key.name.ends_with("_lr") && named("learning_rate"));
}

void check_allowed(const std::vector<std::string>& allowed) {
  std::vector<std::string> names;
  for (const Key& key : config_keys()) names.push_back(key.name);
  for (const std::string& name : allowed) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    const std::string close = nearest(name, names);
    refuse_to_resume("--allow-changes names no key: '" + name + "'" +
                     (close.empty() ? "" : "; did you mean '" + close + "'?"));
  }
}

}  // namespace

ResumePoint find_resume_point(const std::string& run, const fs::path& runs_dir, bool branch) {
  ResumePoint point;
  point.branch = branch;
  if (run == "auto") return open_last_trained(runs_dir, std::move(point));
  fs::path folder = fs::path(run).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();  // a slash at the end
  const bool checkpoint = folder.parent_path().filename() == "checkpoint";
  // A folder of another kind may bear an id's name.
  if (!checkpoint && !fs::is_directory(folder / "checkpoint")) folder = runs_dir / run;
  const fs::path owner = checkpoint ? folder.parent_path().parent_path() : folder;
  if (!fs::is_directory(owner / "checkpoint")) {
    refuse_to_resume("there is no run '" + run + "', neither as a folder nor below " +
                     runs_dir.string());
  }
  if (!branch) point.lock = RunLock::take(owner);
  return checkpoint ? open_checkpoint(owner, folder, std::move(point))
                    : open_newest(owner, std::move(point));
}

Config resumed_config(const ResumePoint& point, const std::function<void(Config&)>& settings,
                      const std::vector<std::string>& allowed) {
  check_allowed(allowed);
  Config saved;
  apply_yaml(saved, point.checkpoint / "config.yaml");
  const std::string id = std::exchange(saved.run_id, "");  // what settings name is a new one
  Config asked = saved;
  if (point.branch) asked.runs_dir = fs::absolute(point.run).parent_path().string();
  settings(asked);
  check(asked);
  if (!point.branch && !asked.run_id.empty()) {
    refuse_to_resume("--run-id names a new run, and this one goes on as " + point.run.string() +
                     "; leave it out, or add --branch");
  }
  Config before = resolve(saved), after = resolve(asked);
  if (!after.bos_id) after.bos_id = before.bos_id;  // what only the data tells
  if (!point.branch) after.run_id = id;
  const bool one_rate = before.learning_rate != after.learning_rate;
  std::string changes, names;
  for (const Key& key : config_keys()) {
    const json old_value = key_json(before, key), value = key_json(after, key);
    const bool follows = one_rate && key.name.ends_with("_lr") && value == after.learning_rate;
    const bool falls = before.lr_warmdown_steps > 0 && after.lr_warmdown_steps > 0;
    if (old_value == value || follows || may_change(key, allowed, falls)) continue;
    changes += (changes.empty() ? "" : ", ") + key.name + " from " + quoted(before, key) + " to " +
               quoted(after, key);
    names += (names.empty() ? "" : ",") + key.name;
  }
  if (!changes.empty()) {
    refuse_to_resume("this would change " + changes +
                     ", and so what is learned; leave it as it was, or add --allow-changes " +
                     names);
  }
  return after;
}

bool measures_anew(const ResumePoint& point, const Config& config) {
  if (point.branch) return true;
  Config saved;
  apply_yaml(saved, point.checkpoint / "config.yaml");
  const Config before = resolve(saved), after = resolve(config);
  const std::vector<Key>& keys = config_keys();
  return std::any_of(keys.begin(), keys.end(), [&](const Key& key) {
    const bool tells_nothing = is_safe(key) && key.name != "graph";  // which decides a step's time
    return !tells_nothing && key_json(before, key) != key_json(after, key);
  });
}

void check_budget_left(const ResumePoint& point, const Budget& budget) {
  const int64_t step = point.state.step;
  const bool told = point.branch || point.status() == "finished";
  const bool beyond = budget.steps && step > *budget.steps;
  const bool spent = spent_share(budget, step, point.state.elapsed_seconds) >= 1;
  if (!spent || (!told && !beyond)) return;
  std::ostringstream text;
  text << "nothing is left to do: " << point.checkpoint.string() << " is of step " << step
       << " after " << short_duration(point.state.elapsed_seconds) << ", and the budget is ";
  if (budget.steps) text << *budget.steps << " steps";
  if (budget.seconds) {
    text << (budget.steps ? " and " : "") << short_duration(*budget.seconds);
  }
  refuse_to_resume(text.str() + "; raise --target-flops, --max-steps or --max-seconds");
}

void describe_origin(nlohmann::ordered_json& summary, const ResumePoint& point) {
  if (point.branch) {
    summary["parent"] = {{"run_id", point.state.run_id}, {"step", point.state.step}};
    return;
  }
  for (const char* name : {"command", "parent", "resumed", "profile"}) {
    if (point.summary.contains(name)) summary[name] = point.summary[name];
  }
  if (!summary["resumed"].is_array()) summary["resumed"] = json::array();
  summary["resumed"].push_back(point.state.step);
}

}  // namespace nanoflex
