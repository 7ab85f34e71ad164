#include "trainer/numbers.h"
#include "trainer/report/html.h"
#include "trainer/report/run_sections.h"

namespace nanoflex {
namespace {

using nlohmann::json;
using Rows = std::vector<std::vector<std::string>>;

constexpr size_t kShownOperations = 12;  // rows of the table; profile.md has more

double number_or_zero(const json& value) { return value.is_number() ? value.get<double>() : 0; }

// "12.3 (62 %)": a rate in units of 1e9, and its share of the machine's.
std::string rate_text(const json& amount, const json& seconds, const json& limit) {
  const double a = number_or_zero(amount), s = number_or_zero(seconds),
               most = number_or_zero(limit);
  if (!(a > 0 && s > 0 && most > 0)) return text_of(json());
  return with_decimals(a / s / 1e9, 1) + " (" + with_decimals(100 * a / s / most, 0) + " %)";
}

std::string parts_table(const json& profile) {
  const json parts = field(profile, "parts"), limit = field(profile, "limits.flops_per_second");
  double sum = 0;
  for (const json& part : parts) sum += number_or_zero(field(part, "seconds"));
  Rows rows = {{"part of a step", "ms", "share", "GFLOP/s"}};
  for (const json& part : parts) {
    const json seconds = field(part, "seconds");
    rows.push_back({text_of(field(part, "name")), decimals_of(seconds, 1e-3, 2),
                    with_decimals(sum > 0 ? 100 * number_or_zero(seconds) / sum : 0, 1) + " %",
                    rate_text(field(part, "flops"), seconds, limit)});
  }
  return html_table(rows, 1);
}

std::string operations_table(const json& profile) {
  Rows rows = {{"operation", "calls", "ms", "GFLOP/s", "GB/s"}};
  for (const json& operation : field(profile, "operations")) {
    if (rows.size() > kShownOperations) break;
    const json seconds = field(operation, "seconds");
    rows.push_back(
        {text_of(field(operation, "name")), decimals_of(field(operation, "calls"), 1, 0),
         decimals_of(seconds, 1e-3, 3),
         rate_text(field(operation, "flops"), seconds, field(profile, "limits.flops_per_second")),
         rate_text(field(operation, "bytes"), seconds, field(profile, "limits.bytes_per_second"))});
  }
  return html_table(rows, 1);
}

std::string tensors_table(const json& profile) {
  Rows rows = {{"made in", "MB"}};
  for (const json& tensor : field(profile, "memory.largest"))
    rows.push_back(
        {text_of(field(tensor, "made_in")), decimals_of(field(tensor, "bytes"), 1e6, 2)});
  return html_table(rows, 1);
}

std::string tensor_verdict(const json& profile) {
  const json held = field(profile, "row.own.queries_by_keys_tensor");
  const json own = field(profile, "row.own.operations"),
             plain = field(profile, "row.vanilla.operations");
  std::string text = "A tensor of all query-key pairs was " +
                     (held.is_null() ? "never held." : "held: " + text_of(held) + ".");
  if (own.is_number() && plain.is_number()) {
    text += " Over one row, forward and backward, " + text_of(field(profile, "row.backend")) +
            " dispatches " + decimals_of(own, 1, 0) + " operations, plain tensors " +
            decimals_of(plain, 1, 0) + ".";
  }
  return text;
}

}  // namespace

std::string profile_section(const FullRecord& record) {
  const json& profile = record.profile;
  if (!profile.is_object()) return "";
  const json limits = field(profile, "limits");
  const std::string intro =
      "Mean of " + text_of(field(profile, "steps")) + " steps after the warm-up, " +
      decimals_of(field(profile, "seconds_per_step"), 1e-3, 1) +
      " ms each under the profiler. In brackets: share of what this machine reaches, " +
      decimals_of(field(limits, "flops_per_second"), 1e9, 0) + " GFLOP/s and " +
      decimals_of(field(limits, "bytes_per_second"), 1e9, 1) +
      " GB/s. profile.md has more, and trace.json opens in Perfetto.";
  return "<h2>Profile</h2>\n<p class=\"note\">" + html_text(intro) + "</p>\n<p>" +
         html_text(tensor_verdict(profile)) + "</p>\n" + parts_table(profile) +
         "<h3>The slowest operations</h3>\n" + operations_table(profile) +
         "<h3>The largest tensors at the peak</h3>\n" + tensors_table(profile);
}

}  // namespace nanoflex
