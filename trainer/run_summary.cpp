#include "trainer/run_summary.h"

#include <glob.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <set>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "attention/nearest.h"
#include "trainer/record_file.h"
#include "trainer/resolve.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

[[noreturn]] void refuse_to_compare(const std::string& message) {
  throw std::invalid_argument("[compare] " + printable(message));
}

json parse_file(const fs::path& file) try {
  return parse_record(file);
} catch (const json::exception& failure) {
  const std::string reason = failure.what();  // behind the library's own "[json.exception...] "
  refuse_to_compare(file.string() + ": not valid JSON: " + reason.substr(reason.find("] ") + 2));
} catch (const std::invalid_argument& problem) {
  refuse_to_compare(file.string() + ": " + problem.what());
}

// One summary.json, its fields addressed by dotted names such as "results.final_loss".
class Record {
 public:
  explicit Record(fs::path file) : file_(std::move(file)), root_(parse_file(file_)) {}

  const json& field(const std::string& name) const {
    const json* value = &root_;
    for (size_t begin = 0; begin <= name.size();) {
      const size_t end = std::min(name.find('.', begin), name.size());
      const std::string parent = begin == 0 ? "the record" : name.substr(0, begin - 1);
      if (!value->is_object()) mismatch(parent, "an object", *value);
      const auto found = value->find(name.substr(begin, end - begin));
      if (found == value->end())
        refuse_to_compare(file_.string() + ": has no " + name.substr(0, end));
      value = &*found;
      begin = end + 1;
    }
    return *value;
  }

  std::string text(const std::string& name) const {
    const json& value = field(name);
    if (!value.is_string() || value.get_ref<const std::string&>().empty())
      mismatch(name, "a name", value);
    return printable(value.get<std::string>());
  }

  std::optional<double> number(const std::string& name) const {
    const json& value = field(name);
    if (value.is_null()) return std::nullopt;
    if (!value.is_number()) mismatch(name, "a number or null", value);
    return value.get<double>();
  }

  bool has(const std::string& name) const { return root_.is_object() && root_.contains(name); }

  // What an object of the record says of some of its keys, for people; "" where it has none.
  std::string words(const std::string& object, const std::vector<std::string>& keys) const {
    std::string words;
    const auto inner = root_.find(object);
    if (inner == root_.end() || !inner->is_object()) return words;
    for (const std::string& key : keys) {
      if (!inner->contains(key)) continue;
      words += (words.empty() ? "" : ", ") + key + " " + shown(inner->at(key));
    }
    return words;
  }

  const json& object(const std::string& name) const {
    const json& value = field(name);
    if (!value.is_object()) mismatch(name, "an object", value);
    return value;
  }

  void check_schema() const {
    const json& schema = field("schema");
    if (!schema.is_number_integer() || schema != kSummarySchema)
      mismatch("schema", std::to_string(kSummarySchema) + " (written by another version?)", schema);
  }

 private:
  [[noreturn]] void mismatch(const std::string& name, const std::string& wanted,
                             const json& value) const {
    const std::string seen = value.is_string() ? '"' + shown(value) + '"' : shown(value);
    refuse_to_compare(file_.string() + ": " + name + " must be " + wanted + ", is " + seen);
  }

  fs::path file_;
  json root_;
};

// --- finding runs -----------------------------------------------------------------------------

bool holds_record(const fs::path& folder) {
  std::error_code error;
  return fs::exists(folder / "summary.json", error);
}

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

std::vector<fs::path> folders_matching(const std::string& pattern) {
  glob_t found{};
  std::vector<fs::path> folders;
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; ++i) {
      const fs::path path = found.gl_pathv[i];
      if (is_folder(path)) folders.push_back(path);
      if (path.filename() == "summary.json") folders.push_back(path.parent_path());
    }
  }
  ::globfree(&found);
  return folders;
}

// A glob names benches and certificates too, which are no runs.
std::vector<fs::path> with_record(std::vector<fs::path> folders) {
  std::erase_if(folders, [](const fs::path& folder) { return !holds_record(folder); });
  return folders;
}

std::string without_wildcards(const std::string& path) {
  std::string pattern;
  for (const char letter : path) {
    if (std::string_view("*?[]\\").find(letter) != std::string_view::npos) pattern += '\\';
    pattern += letter;
  }
  return pattern;
}

[[noreturn]] void refuse_unknown(const std::string& name, const fs::path& runs_dir) {
  std::vector<std::string> ids;
  std::error_code error;
  for (fs::directory_iterator entry(runs_dir, error), end; !error && entry != end;
       entry.increment(error)) {
    if (holds_record(entry->path())) ids.push_back(entry->path().filename().string());
  }
  std::sort(ids.begin(), ids.end());
  const std::string close = nearest(shown(fs::path(name).filename().string()), ids);
  std::string hint = " holds no runs; ./train makes one, --runs-dir names another place";
  if (!ids.empty()) hint = " has none of that name, the last is '" + ids.back() + "'";
  if (!close.empty()) hint = " has none of that name; the nearest is '" + close + "'";
  refuse_to_compare("no run '" + shown(name) + "': it is no run's folder, and " +
                    runs_dir.string() + hint);
}

std::vector<fs::path> resolve(const std::string& argument, const fs::path& runs_dir) {
  const fs::path path = argument;
  if (path.filename() == "summary.json" && holds_record(path.parent_path()))
    return {path.parent_path()};
  if (holds_record(path)) return {path};
  if (!argument.empty() && is_folder(runs_dir / path)) return {runs_dir / path};
  if (is_folder(path)) return {path};
  if (argument.find_first_of("*?[") != std::string::npos) {
    const auto here = folders_matching(argument);
    const auto below = folders_matching(without_wildcards(runs_dir.string()) + "/" + argument);
    for (const auto& found : {here, below}) {
      if (const auto runs = with_record(found); !runs.empty()) return runs;
    }
    if (!below.empty()) return below;
    if (!here.empty()) return here;
    refuse_to_compare("no run matches '" + shown(argument) + "', here or below " +
                      runs_dir.string());
  }
  refuse_unknown(argument, runs_dir);
}

}  // namespace

std::vector<fs::path> resolve_runs(const std::vector<std::string>& arguments,
                                   const fs::path& runs_dir) {
  std::vector<fs::path> folders;
  std::set<fs::path> seen;
  for (const auto& argument : arguments) {
    for (const auto& folder : resolve(argument, runs_dir)) {
      std::error_code error;
      const fs::path canonical = fs::canonical(folder, error);
      if (seen.insert(error ? folder : canonical).second) folders.push_back(folder);
    }
  }
  return folders;
}

fs::path default_runs_dir() { return is_folder("runs") ? fs::path("runs") : source_dir() / "runs"; }

RunSummary read_run(const fs::path& folder) {
  const Record record(folder / "summary.json");
  record.check_schema();
  RunSummary run;
  run.id = record.text("run_id");
  run.path = folder;
  run.status = record.text("status");
  run.backend = record.text("attention.backend");
  run.flops_per_step = record.number("budget.flops_per_step");
  const auto steps = record.number("budget.steps");
  if (record.object("budget").contains("flops")) {
    run.flops = record.number("budget.flops");
  } else if (steps && run.flops_per_step) {
    run.flops = *steps * *run.flops_per_step;
  }
  run.config = record.object("config");
  run.code = record.words("git", {"commit", "dirty"});
  run.machine = record.words("environment", {"cpu", "cores", "gpu", "torch", "compiler"});
  if (record.has("profile")) {
    record.object("profile.parts");
    run.profile = record.object("profile");
  }
  for (const auto& metric : kMetrics)
    run.*metric.value = record.number(std::string("results.") + metric.name);
  return run;
}

std::vector<RunSummary> read_runs(const std::vector<fs::path>& folders, std::ostream& notes) {
  std::vector<RunSummary> runs;
  for (const auto& folder : folders) {
    try {
      runs.push_back(read_run(folder));
    } catch (const std::invalid_argument& reason) {
      notes << "skipped: " << reason.what() << '\n';
    }
  }
  if (runs.empty()) refuse_to_compare("none of the named runs has a readable record");
  return runs;
}

}  // namespace nanoflex
