// A comparison on one page of HTML.
#include <stdexcept>

#include "trainer/comparison_tables.h"
#include "trainer/report/curves.h"
#include "trainer/report/html.h"
#include "trainer/report/page.h"
#include "trainer/report/record.h"
#include "trainer/run_folder.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::json;

std::string header(const Comparison& comparison) {
  const auto& rows = comparison.rows;
  const std::string title =
      rows.size() == 1 ? rows[0].label : std::to_string(rows.size()) + " runs";
  std::string html = "<header><p class=\"kicker\">Nanoflex: training runs side by side</p>\n<h1>" +
                     html_text(title) + "</h1>\n";
  if (rows.size() > 1) {
    html += "<p>In brackets: the ratio to the first, " + html_text(rows[0].label) + ".</p>\n";
  }
  for (const std::string& warning : comparison.warnings)
    html += "<p class=\"warning\">" + html_text(warning) + "</p>\n";
  return html + "</header>\n";
}

std::string section(const std::string& title, const Table& table, size_t left_columns) {
  if (table.size() < 2) return "";
  return "<h2>" + html_text(title) + "</h2>\n" + html_table(table, left_columns);
}

Table folders(const Comparison& comparison) {
  Table table = {{"run", "status", "folder"}};
  for (const ComparisonRow& row : comparison.rows)
    table.push_back({row.label, row.status, row.path});
  return table;
}

std::string differences(const Comparison& comparison) {
  const size_t runs = comparison.rows.size();
  if (runs < 2) return "";
  if (comparison.differing_keys.empty())
    return "<h2>Config</h2>\n<p class=\"note\">No config key differs.</p>\n";
  return section("Config keys that differ", keys_table(comparison), runs + 1);
}

}  // namespace

std::string to_html(const Comparison& comparison,
                    const std::vector<std::vector<MetricsLine>>& metrics) {
  json runs = json::array();
  for (size_t i = 0; i < comparison.rows.size(); ++i)
    runs.push_back(curves_of(comparison.rows[i].label, metrics.at(i)));
  const std::string seeds =
      "Means over seeds, with their deviation, against the first by Welch's test";
  return html_page({.title = "Nanoflex: " + std::to_string(comparison.rows.size()) + " runs",
                    .body = header(comparison) + section("Results", numbers_table(comparison), 2) +
                            section(seeds, groups_table(comparison), 1) + "<h2>Curves</h2>\n" +
                            chart_places(runs) + differences(comparison) +
                            section("Profiles", profile_table(comparison), 1) +
                            section("Records", folders(comparison), 3) +
                            "<footer>Charts by dygraphs (MIT licence).</footer>\n",
                    .runs = runs});
}

void write_html(const std::filesystem::path& file, const Comparison& comparison,
                const std::vector<RunSummary>& runs) {
  const auto folder = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
  if (!std::filesystem::is_directory(folder) || std::filesystem::is_directory(file) ||
      !file.has_filename()) {
    throw std::invalid_argument(
        "[compare] --html must name a file in a folder that is there, is '" +
        printable(file.string()) + "'");
  }
  std::vector<std::vector<MetricsLine>> metrics;
  for (const RunSummary& run : runs) metrics.push_back(read_metrics(run.path / "metrics.jsonl"));
  write_file(file, to_html(comparison, metrics));
}

}  // namespace nanoflex
