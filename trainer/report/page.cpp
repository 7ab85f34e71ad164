#include "trainer/report/page.h"

#include <array>

#include "trainer/report/assets.h"
#include "trainer/report/curves.h"
#include "trainer/report/html.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::json;

struct Chart {
  const char *title, *unit;
  const char* columns;  // of the metrics, the first always, separated by spaces
  const char* scale;    // what a value is multiplied by
  const char* also;     // a column whose values are told beside: name and unit
  const char* from;     // "0": where the axis begins, unless it is logarithmic
  const char* kind;     // "wide": as the page; "timed": shows which steps the timing leaves out
};

constexpr std::array<Chart, 5> kCharts = {{
    {"Loss", "nats per token", "loss validation_loss", "1", "", "", "wide"},
    {"Throughput", "tokens/s", "tokens_per_second", "1", "tflops_per_second TFLOP/s", "0", "timed"},
    {"Memory", "MB, peak of live tensors so far", "memory_bytes", "1e-6", "", "0", ""},
    {"Learning rate", "", "learning_rate", "1", "", "", ""},
    {"Gradient norm", "", "grad_norm", "1", "", "", ""},
}};

constexpr const char* kTools = R"(<div class="tools" hidden>
<label>across <select id="across"><option value="step">steps</option><option value="tokens">tokens</option><option value="seconds">seconds</option></select></label>
<label><input type="checkbox" id="log-y"> log scale</label>
<label><input type="checkbox" id="log-x"> log scale across</label>
<label>mean of <input type="range" id="smooth" min="1" max="50" value="1"> <output id="smoothed">1</output></label>
<button type="button" id="whole">whole run</button>
<span class="hint">Point at a curve for its values; drag over it to zoom, double-click to zoom out.</span>
</div>
<noscript><p class="note">The curves need JavaScript. Their numbers are in metrics.jsonl.</p></noscript>
)";

// Only this page's own style and script; nothing from anywhere else, and nothing to anywhere.
constexpr const char* kPolicy =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'";

bool has_values(const json& runs, const std::string& column) {
  for (const json& run : runs) {
    for (const json& curve : run.at("curves")) {
      const auto found = curve.at("columns").find(column);
      if (found == curve.at("columns").end()) continue;
      for (const json& value : *found) {
        if (!value.is_null()) return true;
      }
    }
  }
  return false;
}

std::string place(const Chart& chart) {
  std::string figure = std::string("<figure class=\"chart ") + chart.kind + "\" data-columns=\"" +
                       chart.columns + "\" data-scale=\"" + chart.scale + "\" data-also=\"" +
                       chart.also + "\" data-from=\"" + chart.from + "\" data-unit=\"" +
                       chart.unit + "\">\n<figcaption><b>" + chart.title + "</b> " + chart.unit +
                       "</figcaption>\n";
  return figure + "<div class=\"values\"></div><div class=\"plot\"></div>\n</figure>\n";
}

// Says where a point stands for several steps.
std::string downsampling_note(const json& runs) {
  std::string note;
  for (const json& run : runs) {
    const json& curve = run.at("curves").at(0);
    if (curve.at("bucket") == 1) continue;
    note += (note.empty() ? "" : "; ") + run.at("label").get<std::string>() + " has " +
            with_decimals(run.at("steps").get<double>(), 0) + " steps, " +
            curve.at("bucket").dump() + " a point";
  }
  if (note.empty()) return "";
  return "<p class=\"note\">" + html_text(note) +
         ": the curve is their mean, the band around it their smallest and largest value. "
         "metrics.jsonl has every step.</p>\n";
}

}  // namespace

std::string chart_places(const json& runs) {
  std::string figures;
  for (const Chart& chart : kCharts) {
    const std::string columns = chart.columns;
    if (has_values(runs, columns.substr(0, columns.find(' ')))) figures += place(chart);
  }
  if (figures.empty()) return "<p class=\"note\">No step was taken yet: there are no curves.</p>\n";
  return kTools + ("<div class=\"charts\">\n" + figures + "</div>\n") + downsampling_note(runs);
}

std::string html_page(const Page& page) {
  const PageAssets& assets = page_assets();
  std::string html = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n";
  const auto add = [&](const auto&... parts) { ((html += parts), ...); };
  add("<meta http-equiv=\"Content-Security-Policy\" content=\"", kPolicy, "\">\n");
  add("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
  add("<meta name=\"color-scheme\" content=\"light dark\">\n");
  add("<link rel=\"icon\" href=\"data:,\">\n");
  add("<title>", html_text(page.title), "</title>\n");
  add("<style>\n", assets.charts_style, "\n", assets.style, "</style></head>\n<body>\n");
  add(page.body);
  add("<script type=\"application/json\" id=\"runs\">", html_json(page.runs), "</script>\n");
  add("<script>/*\n", assets.licence, "*/\n", assets.charts, "</script>\n");
  add("<script>\n", assets.script, "</script>\n</body></html>\n");
  return html;
}

}  // namespace nanoflex
