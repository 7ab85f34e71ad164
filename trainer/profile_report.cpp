// The page of Markdown that a profile leaves beside its trace.
#include <cstdio>
#include <sstream>

#include "trainer/profiled_steps.h"

namespace nanoflex {
namespace {

using nlohmann::json;

constexpr size_t kReportOperations = 20;  // rows of the table

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

// "12.3 (0.62)": a rate in units of `unit`, and its share of the machine's.
std::string rate(double amount, double seconds, double limit, double unit) {
  if (amount <= 0 || seconds <= 0) return "-";
  return fixed(amount / seconds / unit, 1) + " (" + fixed(amount / seconds / limit, 2) + ")";
}

void add_parts(std::ostringstream& page, const json& profile) {
  const double limit = profile.at("limits").at("flops_per_second");
  double sum = 0;
  for (const json& part : profile.at("parts")) sum += part.at("seconds").get<double>();
  page << "\n## Where a step's time goes\n\n| part | ms | share | GFLOP | GFLOP/s (of the "
          "machine's) "
          "|\n|---|---:|---:|---:|---:|\n";
  for (const json& part : profile.at("parts")) {
    const double seconds = part.at("seconds"), flops = part.at("flops");
    page << "| " << part.at("name").get<std::string>() << " | " << fixed(1e3 * seconds, 2) << " | "
         << fixed(100 * seconds / sum, 1) << " % | " << (flops > 0 ? fixed(flops / 1e9, 2) : "-")
         << " | " << rate(flops, seconds, limit, 1e9) << " |\n";
  }
}

void add_operations(std::ostringstream& page, const json& profile) {
  const json& limits = profile.at("limits");
  page << "\n## The slowest operations\n\nTheir own time, a step; what they call counts by itself. "
          "In brackets: share of what the machine does at best.\n\n"
          "| operation | calls | ms | GFLOP/s | GB/s |\n|---|---:|---:|---:|---:|\n";
  size_t count = 0;
  for (const json& operation : profile.at("operations")) {
    if (++count > kReportOperations) break;
    const double seconds = operation.at("seconds");
    page << "| `" << operation.at("name").get<std::string>() << "` | "
         << fixed(operation.at("calls"), 0) << " | " << fixed(1e3 * seconds, 3) << " | "
         << rate(operation.at("flops"), seconds, limits.at("flops_per_second"), 1e9) << " | "
         << rate(operation.at("bytes"), seconds, limits.at("bytes_per_second"), 1e9) << " |\n";
  }
}

void add_memory(std::ostringstream& page, const json& memory) {
  page << "\n## The largest tensors at the peak\n\n"
       << fixed(memory.at("peak_bytes").get<double>() / 1e6, 1) << " MB live, of which "
       << fixed(memory.at("before_bytes").get<double>() / 1e6, 1)
       << " MB before these steps: weights, optimizer state, what the last step left.\n\n"
          "| MB | made in |\n|---:|---|\n";
  for (const json& tensor : memory.at("largest")) {
    page << "| " << fixed(tensor.at("bytes").get<double>() / 1e6, 2) << " | `"
         << tensor.at("made_in").get<std::string>() << "` |\n";
  }
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
  add_parts(page, profile);
  add_operations(page, profile);
  add_memory(page, profile.at("memory"));
  add_verdict(page, profile.at("row"));
  return page.str();
}

}  // namespace nanoflex
