#include "evidence/published.h"

#include <sstream>

#include "evidence/rows.h"
#include "trainer/markdown.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

const std::string kRtx4090 = "RTX 4090, not compiled", kUnnamed = "a machine that is not named";

std::string shortest(double value) {
  std::ostringstream text;
  text.precision(10);
  text << value;
  return text.str();
}

}  // namespace

const std::vector<Published>& published_figures() {
  static const std::vector<Published> figures = {
      {"baseline", "sdpa", kRtx4090, "throughput", "tokens/s", 54950},
      {"baseline", "sdpa", kRtx4090, "rate", "TFLOP/s", 2.47},
      {"baseline", "sdpa", kRtx4090, "peak memory", "GB", 1.54},
      {"baseline", "flex, not fused", kRtx4090, "throughput", "tokens/s", 20761},
      {"baseline", "flex, not fused", kRtx4090, "rate", "TFLOP/s", 0.93},
      {"baseline", "flex, not fused", kRtx4090, "peak memory", "GB", 1.54},
      {"baseline", "both, about", kRtx4090, "loss at step 22", "nats", 10.38},
      {"forward", "sdpa", kUnnamed, "time", "ms", 4.41},
      {"forward", "sdpa", kUnnamed, "throughput", "tokens/s", 928928},
      {"forward", "sdpa", kUnnamed, "peak memory", "MB", 1044},
      {"forward", "flex", kUnnamed, "time", "ms", 10.49},
      {"forward", "flex", kUnnamed, "throughput", "tokens/s", 390619},
      {"forward", "flex", kUnnamed, "peak memory", "MB", 1817.5},
      {"guide", "causal, vanilla compiled", kUnnamed, "time", "s", 6.74},
      {"guide", "causal, vanilla", kUnnamed, "time", "s", 10.61},
      {"guide", "causal, flex", kUnnamed, "time", "s", 18.63},
      {"guide", "causal, flex compiled", kUnnamed, "time", "s", 21.27}};
  return figures;
}

ordered_json published_json(const std::string& bench) {
  ordered_json rows = ordered_json::array();
  for (const Published& figure : published_figures()) {
    if (figure.bench != bench) continue;
    rows.push_back({{"what", figure.what},
                    {"machine", figure.machine},
                    {"quantity", figure.quantity},
                    {"unit", figure.unit},
                    {"value", figure.value}});
  }
  return rows;
}

std::string published_markdown(const std::string& bench) {
  Table table = {{"published", "machine", "quantity", "value"}};
  for (const Published& figure : published_figures()) {
    if (figure.bench != bench) continue;
    table.push_back({figure.what, figure.machine, figure.quantity + ", " + figure.unit,
                     shortest(figure.value)});
  }
  if (table.size() == 1) return "";
  return "\nPublished by others, not measured here:\n\n" + markdown_table(table, 3);
}

}  // namespace nanoflex
