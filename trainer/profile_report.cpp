// The page of Markdown that a profile leaves beside its trace.
#include <sstream>

#include "trainer/profile_tables.h"
#include "trainer/profiled_steps.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::json;

constexpr size_t kReportOperations = 20;  // rows of the table

// Names of operations are no markup.
std::string markdown(Table table) {
  for (auto& row : table) row[0] = markdown_text(row[0]);
  return markdown_table(table, 1);
}

void add_verdict(std::ostringstream& page, const json& row) {
  const json &own = row.at("own"), &plain = row.at("vanilla");
  const std::string backend = row.at("backend");
  const json& held = own.at("queries_by_keys_tensor");
  const auto fewer = plain.at("operations").get<int64_t>() - own.at("operations").get<int64_t>();
  page << "\n## Two questions\n\nOne row of " << row.at("length")
       << " tokens, forward and backward.\n\n- Was a queries x keys tensor ever held? "
       << (held.is_null() ? "No." : "Yes: " + held.get<std::string>() + ".")
       << "\n- How many fewer launches than with plain attention? " << fewer << ": " << backend
       << " dispatches " << own.at("operations") << " operations, vanilla "
       << plain.at("operations") << ".\n";
}

}  // namespace

nlohmann::ordered_json profile_summary(const nlohmann::ordered_json& profile) {
  const auto& own = profile.at("row").at("own");
  const int64_t plain = profile.at("row").at("vanilla").at("operations");
  nlohmann::ordered_json parts;
  for (const auto& part : profile.at("parts")) {
    parts[part.at("name").get<std::string>()] = part.at("seconds");
  }
  return {{"steps", profile.at("steps")},
          {"seconds_per_step", profile.at("seconds_per_step")},
          {"launches_per_step", profile.at("launches_per_step")},
          {"launches_are", profile.at("launches_are")},
          {"parts", parts},
          {"queries_by_keys_tensor", own.at("queries_by_keys_tensor")},
          {"fewer_operations", plain - own.at("operations").get<int64_t>()}};
}

std::string profile_markdown(const json& profile) {
  std::ostringstream page;
  const json& limits = profile.at("limits");
  page << "# Profile of " << profile.at("steps") << " steps\n\nA step took "
       << fixed(1e3 * profile.at("seconds_per_step").get<double>(), 1)
       << " ms under the profiler, and " << fixed(profile.at("launches_per_step"), 0)
       << (profile.at("launches_are") == "kernels" ? " kernels were launched"
                                                   : " operations were dispatched")
       << ". The machine, as LibTorch reaches it: "
       << fixed(limits.at("flops_per_second").get<double>() / 1e9, 0) << " GFLOP/s in "
       << profile.at("dtype").get<std::string>() << ", "
       << fixed(limits.at("bytes_per_second").get<double>() / 1e9, 1)
       << " GB/s. `trace.json` opens in Perfetto.\n";
  page << "\n## Where a step's time goes\n\nIn brackets: share of what the machine does at best."
          "\n\n"
       << markdown(parts_table(profile))
       << "\n## The slowest operations\n\nTheir own time, a step; what they call counts by itself."
          "\n\n"
       << markdown(operations_table(profile, kReportOperations));
  const json& memory = profile.at("memory");
  page << "\n## The largest tensors at the peak\n\n"
       << fixed(memory.at("peak_bytes").get<double>() / 1e6, 1) << " MB live, of which "
       << fixed(memory.at("before_bytes").get<double>() / 1e6, 1)
       << " MB before these steps: weights, optimizer state, what the last step left.\n\n"
       << markdown(tensors_table(profile));
  add_verdict(page, profile.at("row"));
  return page.str();
}

}  // namespace nanoflex
