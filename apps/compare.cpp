// ./compare RUN RUN...: run records side by side.
// A --where may hold a comma.
#define CXXOPTS_VECTOR_DELIMITER '\0'

#include <cxxopts.hpp>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <string>

#include "trainer/command_line.h"
#include "trainer/comparison.h"
#include "trainer/selection.h"

namespace {

constexpr const char* kHelp = R"(
RUN is a run's folder, an id below the runs folder, or a quoted glob over either.
The first run is the one that the others are measured against. Runs that differ in their seed alone
are also shown as a mean, with a Welch test against the first such group.

  ./compare 20260101_120000 20260101_130000
  ./compare --markdown 'runs/2026*'
  ./compare --html runs/compared.html before after
  ./compare --where attention=flex --sort tokens_per_second '*'
  ./compare --against before --fail-if "tokens_per_second < 0.97" after
)";

// What is printed, and what --fail-if finds.
struct Answer {
  std::string text;
  std::vector<std::string> failures = {};
};

// A run that a rule cannot be held to fails it, rather than being left out.
std::vector<nanoflex::RunSummary> read_runs(const std::vector<std::filesystem::path>& folders,
                                            bool all) {
  if (!all) return nanoflex::read_runs(folders, std::cerr);
  std::vector<nanoflex::RunSummary> runs;
  for (const auto& folder : folders) runs.push_back(nanoflex::read_run(folder));
  return runs;
}

std::vector<nanoflex::RunSummary> selected_runs(const cxxopts::ParseResult& flags) {
  const auto runs_dir = flags.count("runs-dir")
                            ? std::filesystem::path(flags["runs-dir"].as<std::string>())
                            : nanoflex::default_runs_dir();
  const bool all = flags.count("fail-if") > 0;
  auto runs = read_runs(nanoflex::resolve_runs(flags.unmatched(), runs_dir), all);
  if (flags.count("where")) {
    runs = nanoflex::where(std::move(runs), flags["where"].as<std::vector<std::string>>());
  }
  if (flags.count("sort")) {
    runs = nanoflex::sorted_by(std::move(runs), flags["sort"].as<std::string>());
  }
  if (!flags.count("against")) return runs;
  const auto against = nanoflex::resolve_runs({flags["against"].as<std::string>()}, runs_dir);
  if (against.size() != 1)
    throw std::invalid_argument("[compare] --against must name one run, names " +
                                std::to_string(against.size()));
  auto result = read_runs(against, all);
  for (auto& run : runs) {
    if (!std::filesystem::equivalent(run.path, against[0])) result.push_back(std::move(run));
  }
  return result;
}

Answer answer(int argc, char** argv) {
  cxxopts::Options options("./compare", "Set run records side by side.");
  options.custom_help("[OPTION...] RUN RUN...");
  options.add_options()("json", "write JSON")("markdown", "write Markdown")(
      "html", "also write FILE: a page with the runs' curves over each other",
      cxxopts::value<std::string>(),
      "FILE")("where", "only runs with KEY=VALUE or KEY!=VALUE: a config key, status or id",
              cxxopts::value<std::vector<std::string>>(), "CONDITION")(
      "sort", "the best first by tokens_per_second, final_loss, ...", cxxopts::value<std::string>(),
      "NUMBER")("against", "the run that the others are measured against",
                cxxopts::value<std::string>(), "RUN")(
      "fail-if", "exit code 1 if a ratio to the first run is like this: \"final_loss > 1.01\"",
      cxxopts::value<std::string>(),
      "RULE")("runs-dir", "where ids are looked up (default: runs/ here, else the project's)",
              cxxopts::value<std::string>(), "DIR")("h,help", "show this help");
  const auto flags = options.parse(argc, argv);
  if (flags.count("help")) return {options.help() + kHelp};
  const bool json = flags["json"].as<bool>(), markdown = flags["markdown"].as<bool>();
  if (json && markdown)
    throw std::invalid_argument("[compare] give --json or --markdown, not both");
  if (flags.unmatched().empty())
    throw std::invalid_argument("[compare] no run is named: ./compare RUN RUN...; see --help");

  std::optional<nanoflex::FailureRule> rule;
  if (flags.count("fail-if"))
    rule = nanoflex::parse_failure_rule(flags["fail-if"].as<std::string>());
  const auto runs = selected_runs(flags);
  const auto comparison = nanoflex::compare(runs);
  if (rule && comparison.rows.size() < 2)
    throw std::invalid_argument("[compare] --fail-if needs a second run to hold against the first");
  if (flags.count("html")) nanoflex::write_html(flags["html"].as<std::string>(), comparison, runs);
  Answer result{json       ? to_json(comparison)
                : markdown ? to_markdown(comparison)
                           : to_text(comparison)};
  if (rule) result.failures = nanoflex::failures(comparison, *rule);
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  return nanoflex::run_program([&] {
    const Answer result = answer(argc, argv);
    std::cout << result.text << std::flush;
    if (!std::cout) throw std::runtime_error("[compare] the output cannot be written");
    for (const std::string& line : result.failures) std::cerr << "failed: " << line << '\n';
    return result.failures.empty() ? 0 : 1;
  });
}
