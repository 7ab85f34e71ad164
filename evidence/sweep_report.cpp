#include <algorithm>
#include <functional>
#include <sstream>

#include "evidence/attention_sweep.h"
#include "evidence/chart.h"
#include "evidence/passes.h"
#include "evidence/rows.h"
#include "trainer/markdown.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

// The rows of one head of 64, forward and backward together.
bool is_charted(const ordered_json& row, const std::string& backend, const std::string& dtype) {
  return row.at("backend") == backend && row.at("pass") == "step" && row.at("dtype") == dtype &&
         row.at("B") == 1 && row.at("H") == 1 && row.at("D") == 64 &&
         row.at("case").get<std::string>().find("window") == std::string::npos;
}

// A line a backend, over T; values that are not above 0 are left out.
std::string chart_over_length(const ordered_json& sweep, const std::string& dtype,
                              const std::vector<std::string>& backends, const std::string& what,
                              const std::string& unit,
                              const std::function<double(const ordered_json&)>& value_of) {
  std::vector<Series> series;
  for (const std::string& backend : backends) {
    Series line{backend, {}};
    for (const ordered_json& row : sweep.at("rows")) {
      if (!is_charted(row, backend, dtype)) continue;
      const double value = value_of(row);
      if (value > 0) line.points.emplace_back(row.at("T").get<double>(), value);
    }
    std::sort(line.points.begin(), line.points.end());
    series.push_back(line);
  }
  return log_chart(what + ", causal, one head of 64, " + dtype, "sequence length, tokens", unit,
                   series);
}

}  // namespace

std::string sweep_csv(const ordered_json& sweep) {
  std::ostringstream csv;
  csv << "case,B,H,T,D,dtype,backend,pass,median_ms,spread,share_of_gemm,times_faster_than_vanilla,"
         "times_faster_than_sdpa,peak_bytes,skipped\n";
  for (const ordered_json& row : sweep.at("rows")) {
    const std::string skipped = row.value("skipped", "");
    csv << row.at("case").get<std::string>();
    for (const char* key : {"B", "H", "T", "D"}) csv << ',' << row.at(key).get<int64_t>();
    for (const char* key : {"dtype", "backend", "pass"})
      csv << ',' << row.at(key).get<std::string>();
    if (!skipped.empty()) {
      csv << ",,,,,,,\"" << skipped << "\"\n";
      continue;
    }
    for (const char* key : {"median_ms", "spread", "share_of_gemm"}) csv << ',' << row.at(key);
    for (const char* peer : {"vanilla", "sdpa"}) {
      csv << ',';
      if (row.at("ratios").contains(peer)) csv << row.at("ratios").at(peer);
    }
    csv << ',' << row.at("peak_bytes") << ",\n";
  }
  return csv.str();
}

std::string sweep_markdown(const ordered_json& sweep) {
  Table table = {{"case", "dtype", "pass", "flash ms", "of GEMM", "over sdpa", "over vanilla",
                  "spread", "peak MB"}};
  for (const ordered_json& row : sweep.at("rows")) {
    if (row.contains("skipped") || row.at("backend") != "flash") continue;
    table.push_back({row.at("case").get<std::string>(), row.at("dtype").get<std::string>(),
                     row.at("pass").get<std::string>(), fixed(row.at("median_ms").get<double>(), 3),
                     fixed(row.at("share_of_gemm").get<double>(), 2), ratio_text(row, "sdpa"),
                     ratio_text(row, "vanilla"), spread_text(row), megabytes(row)});
  }
  return markdown_table(table, 3) + skipped_markdown(sweep.at("rows"));
}

std::map<std::string, std::string> sweep_charts(const ordered_json& sweep,
                                                const std::string& dtype) {
  const std::vector<std::string> all = {"vanilla", "sdpa", "flash"};
  const auto speed_up = [](const ordered_json& row) {
    return row.at("backend") == "vanilla" ? 1 : row.at("ratios").value("vanilla", 0.0);
  };
  return {
      {"attention_" + dtype + ".svg",
       chart_over_length(
           sweep, dtype, all, "Attention's time", "forward and backward, time, ms",
           [](const ordered_json& row) { return row.at("median_ms").get<double>(); })},
      {"attention_speed_up_" + dtype + ".svg",
       chart_over_length(sweep, dtype, all, "Attention's speed-up",
                         "forward and backward, times faster than vanilla", speed_up)},
      {"attention_memory_" + dtype + ".svg",
       chart_over_length(
           sweep, dtype, all, "Attention's memory", "forward and backward, peak beyond inputs, MB",
           [](const ordered_json& row) { return row.at("peak_bytes").get<double>() / 1e6; })}};
}

}  // namespace nanoflex
