#include "trainer/run_folder.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <ctime>
#include <stdexcept>
#include <system_error>

#include "model/durable.h"
#include "trainer/report.h"
#include "trainer/report/record.h"
#include "trainer/run_summary.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;

std::string now_id() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char buffer[32];
  std::strftime(buffer, sizeof buffer, "%Y%m%d_%H%M%S", &local);
  return buffer;
}

void check_id(const std::string& id) {
  const bool plain = std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '-' || c == '.';
  });
  if (!plain || id.front() == '.' || id.front() == '-' || id.size() > 128) {
    throw std::invalid_argument(
        "[run] run_id must be letters, digits, '_', '-' and '.', at most 128, and begin with "
        "none of '.' and '-', is '" +
        printable(id) + "'");
  }
}

[[noreturn]] void cannot_write(const fs::path& file, const std::error_code& error) {
  throw std::invalid_argument("[run] cannot write " + file.string() + ": " + error.message() +
                              "; make room, or choose another place");
}

}  // namespace

ClaimedFolder claim_folder(const fs::path& runs_dir, const std::string& id) {
  if (!id.empty()) check_id(id);
  std::error_code error;
  fs::create_directories(runs_dir, error);
  const std::string base = id.empty() ? now_id() : id;
  std::string name = base;
  // create_directory is atomic: of two runs that ask for one id, one gets it.
  for (int suffix = 2; !error && !fs::create_directory(runs_dir / name, error) && !error;
       ++suffix) {
    if (!id.empty()) {
      throw std::invalid_argument("[run] run_id '" + id + "' is in use: " +
                                  (runs_dir / id).string() + " exists; choose another");
    }
    name = base + "_" + std::to_string(suffix);
  }
  if (error) {
    throw std::invalid_argument("[run] cannot make " + (runs_dir / name).string() + ": " +
                                error.message() + "; choose another --runs-dir");
  }
  return {name, runs_dir / name};
}

RunFolder::RunFolder(const fs::path& runs_dir, const std::string& id, const std::string& metrics) {
  const ClaimedFolder folder = claim_folder(runs_dir, id);
  id_ = folder.id;
  path_ = folder.path;
  lock_ = RunLock::take(path_);
  fs::create_directory(path_ / "checkpoint");
  metrics_.open(path_ / "metrics.jsonl");
  metrics_ << metrics << std::flush;
}

RunFolder::RunFolder(const ExistingRun& run) : id_(run.id), path_(run.path), lock_(run.lock) {
  write_file(path_ / "metrics.jsonl", run.metrics, /*durable=*/true);
  metrics_.open(path_ / "metrics.jsonl", std::ios::app);
}

void RunFolder::write_config(const Config& config) const {
  Config rerun = config;
  rerun.run_id = "";  // an id is used once; without it, running this file again repeats the run
  write_file(path_ / "config.yaml", "# run " + id_ + "\n" + to_yaml(rerun));
}

nlohmann::ordered_json to_json(const StepMetrics& m) {
  nlohmann::ordered_json line = {{"step", m.step},
                                 {"loss", m.loss},
                                 {"learning_rate", m.learning_rate},
                                 {"grad_norm", m.grad_norm},
                                 {"tokens", m.tokens},
                                 {"step_seconds", m.step_seconds},
                                 {"tokens_per_second", m.tokens_per_second},
                                 {"tflops_per_second", m.tflops_per_second},
                                 {"memory_bytes", m.memory_bytes}};
  if (m.validation_loss) line["validation_loss"] = *m.validation_loss;
  if (m.bits_per_byte) line["bits_per_byte"] = *m.bits_per_byte;
  return line;
}

void RunFolder::append(const StepMetrics& metrics) {
  errno = 0;
  metrics_ << to_json(metrics).dump() << std::endl;
  if (!metrics_) {
    cannot_write(path_ / "metrics.jsonl", {errno, std::generic_category()});
  }
}

void RunFolder::flush_metrics() const { flush_to_disk(path_ / "metrics.jsonl"); }

void RunFolder::write_summary(const nlohmann::ordered_json& summary) const {
  write_file(path_ / "summary.json", dumped(summary) + "\n");
  write_file(path_ / "run.md", markdown_report(summary));
  write_file(path_ / "report.html", html_report(read_full_record(path_)));
}

std::string first_metrics(const fs::path& file, int64_t step) {
  std::ifstream in(file);
  std::string result, line;
  for (int64_t expected = 1; expected <= step; ++expected) {
    std::getline(in, line);
    const auto metrics = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    const bool whole = in && !in.eof() && metrics.is_object() && metrics.contains("step");
    if (!whole || metrics["step"] != expected) {
      throw std::invalid_argument("[resume] " + file.string() + " must hold the steps up to " +
                                  std::to_string(step) + ", and step " + std::to_string(expected) +
                                  " is missing or damaged");
    }
    result += line + "\n";
  }
  return result;
}

void write_file(const fs::path& file, const std::string& text, bool durable) {
  const fs::path temporary = file.string() + ".tmp";
  errno = 0;
  std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  std::error_code error;
  if (!out) {
    error = {errno, std::generic_category()};
  } else {
    try {
      if (durable) flush_to_disk(temporary);
      fs::rename(temporary, file, error);
    } catch (const std::system_error& problem) {
      error = problem.code();
    }
  }
  if (!error) return;
  std::error_code ignored;
  fs::remove(temporary, ignored);
  cannot_write(file, error);
}

}  // namespace nanoflex
