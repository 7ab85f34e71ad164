#include "trainer/profile_tables.h"
#include "trainer/report/html.h"
#include "trainer/report/run_sections.h"

namespace nanoflex {
namespace {

using nlohmann::json;

constexpr size_t kShownOperations = 12;  // rows of the table; profile.md has more

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
         html_text(tensor_verdict(profile)) + "</p>\n" + html_table(parts_table(profile), 1) +
         "<h3>The slowest operations</h3>\n" +
         html_table(operations_table(profile, kShownOperations), 1) +
         "<h3>The largest tensors at the peak</h3>\n" + html_table(tensors_table(profile), 1);
}

}  // namespace nanoflex
