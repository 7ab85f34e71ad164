#include "evidence/rows.h"

#include "evidence/passes.h"
#include "trainer/machine.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

ordered_json named_row(const RowName& name) {
  return {{"case", name.what},
          {"backend", name.backend},
          {"pass", name.pass},
          {"device", name.device.str()},
          {"dtype", dtype_name(name.dtype)}};
}

}  // namespace

ordered_json measured_row(const RowName& name, const Measured& measured) {
  ordered_json row = named_row(name);
  row["median_ms"] = measured.median_ms;
  row["spread"] = measured.spread;
  row["repeats"] = measured.repeats_ms.size();
  row["share_of_gemm"] = nullptr;
  row["ratios"] = ordered_json::object();
  row["peak_bytes"] = measured.peak_bytes;
  return row;
}

ordered_json skipped_row(const RowName& name, const std::string& reason) {
  ordered_json row = named_row(name);
  row["skipped"] = reason;
  return row;
}

void add_ratio(ordered_json& row, const std::string& peer, const Measured& own,
               const Measured& peers) {
  const Ratio ratio = times_faster(own, peers);
  row["ratios"][peer] = ratio.value;
  row["ratio_ranges"][peer] = {ratio.low, ratio.high};
}

void add_ratios(ordered_json& row, std::span<const Measured> all, size_t own) {
  for (size_t peer = 0; peer < all.size(); ++peer) {
    if (peer != own) add_ratio(row, all[peer].name, all[own], all[peer]);
  }
}

std::string ratio_text(const Ratio& ratio, double reference) {
  const bool unclear = ratio.low < reference && reference < ratio.high;
  return fixed(ratio.value, 2) + (unclear ? "x (spread too wide to say)" : "x");
}

std::string ratio_text(const ordered_json& row, const std::string& peer) {
  if (!row.contains("ratios") || !row.at("ratios").contains(peer)) return "-";
  const double value = row.at("ratios").at(peer).get<double>();
  Ratio ratio = {value, value, value};
  if (row.contains("ratio_ranges") && row.at("ratio_ranges").contains(peer)) {
    const ordered_json& range = row.at("ratio_ranges").at(peer);
    ratio.low = range.at(0).get<double>();
    ratio.high = range.at(1).get<double>();
  }
  return ratio_text(ratio);
}

std::string spread_text(const ordered_json& row) {
  if (row.value("repeats", 2) < 2) return "one run";
  return fixed(100 * row.at("spread").get<double>(), 0) + " %";
}

std::string megabytes(const ordered_json& row) {
  if (!row.contains("peak_bytes") || row.at("peak_bytes").is_null()) return "-";
  const double megabytes = row.at("peak_bytes").get<double>() / 1e6;
  return fixed(megabytes, megabytes < 10 ? 2 : 0);
}

std::string skipped_markdown(const ordered_json& rows) {
  std::string page;
  for (const ordered_json& row : rows) {
    if (!row.contains("skipped")) continue;
    page += "- " + row.at("case").get<std::string>() + ", " + row.at("backend").get<std::string>() +
            ": " + row.at("skipped").get<std::string>() + "\n";
  }
  return page.empty() ? "" : "\nNot run:\n\n" + page;
}

}  // namespace nanoflex
