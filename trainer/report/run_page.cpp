// A run on one page of HTML.
#include "trainer/report.h"
#include "trainer/report/curves.h"
#include "trainer/report/html.h"
#include "trainer/report/page.h"
#include "trainer/report/run_sections.h"

namespace nanoflex {
namespace {

using nlohmann::json;

// The steps that the throughput leaves out: of other settings, of warm-up, profiled.
int64_t untimed_steps(const json& summary) {
  int64_t steps = 0;
  for (const char* path :
       {"budget.unmeasured_steps", "budget.warmup_steps", "config.output.profile"}) {
    if (const json value = field(summary, path); value.is_number_integer())
      steps += value.get<int64_t>();
  }
  return steps;
}

}  // namespace

std::string html_report(const FullRecord& record) {
  const std::string id = text_of(field(record.summary, "run_id"));
  json run = curves_of(id, record.metrics);
  run["untimed_steps"] = untimed_steps(record.summary);
  const json runs = json::array({run});
  const std::string version = text_of(field(record.summary, "git.commit"));
  return html_page({.title = "Run " + id,
                    .body = header_section(record) + cards_section(record) + "<h2>Curves</h2>\n" +
                            chart_places(runs) + attention_section(record) +
                            samples_section(record) + profile_section(record) +
                            settings_section(record) + "<footer>Nanoflex, commit " +
                            html_text(version) + ". Charts by dygraphs (MIT licence).</footer>\n",
                    .runs = runs});
}

}  // namespace nanoflex
