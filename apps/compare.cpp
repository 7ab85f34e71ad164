// ./compare RUN RUN...: run records side by side.
#include <cxxopts.hpp>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <string>

#include "trainer/comparison.h"

namespace {

constexpr const char* kHelp = R"(
RUN is a run's folder, an id below the runs folder, or a quoted glob over either.
The first run is the one that the others are measured against.

  ./compare 20260101_120000 20260101_130000
  ./compare --markdown 'runs/2026*'
)";

// A misspelt flag is the user's to mend, whatever class the parser's own exceptions have.
cxxopts::ParseResult parse(cxxopts::Options& options, int argc, char** argv) {
  try {
    return options.parse(argc, argv);
  } catch (const std::exception& failure) {
    throw std::invalid_argument(std::string("[compare] ") + failure.what() + "; see --help");
  }
}

std::string answer(int argc, char** argv) {
  cxxopts::Options options("./compare", "Set run records side by side.");
  options.custom_help("[OPTION...] RUN RUN...");
  options.add_options()("json", "write JSON")("markdown", "write Markdown")(
      "runs-dir", "where ids are looked up (default: runs/ here, else the project's)",
      cxxopts::value<std::string>(), "DIR")("h,help", "show this help");
  const auto flags = parse(options, argc, argv);
  if (flags.count("help")) return options.help() + kHelp;
  const bool json = flags["json"].as<bool>(), markdown = flags["markdown"].as<bool>();
  if (json && markdown)
    throw std::invalid_argument("[compare] give --json or --markdown, not both");
  if (flags.unmatched().empty())
    throw std::invalid_argument("[compare] no run is named: ./compare RUN RUN...; see --help");

  const auto runs_dir = flags.count("runs-dir")
                            ? std::filesystem::path(flags["runs-dir"].as<std::string>())
                            : nanoflex::default_runs_dir();
  const auto folders = nanoflex::resolve_runs(flags.unmatched(), runs_dir);
  const auto comparison = nanoflex::compare(nanoflex::read_runs(folders, std::cerr));
  if (json) return to_json(comparison);
  return markdown ? to_markdown(comparison) : to_text(comparison);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    std::cout << answer(argc, argv) << std::flush;
    if (!std::cout) throw std::runtime_error("[compare] the output cannot be written");
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return dynamic_cast<const std::invalid_argument*>(&error) ? 2 : 1;
  }
}
