#include "trainer/profile_tables.h"

#include "trainer/report/record.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::json;

double number_or_zero(const json& value) { return value.is_number() ? value.get<double>() : 0; }

// "12.3 (62 %)": a rate in units of 1e9, and its share of the machine's.
std::string rate_text(const json& amount, const json& seconds, const json& limit) {
  const double a = number_or_zero(amount), s = number_or_zero(seconds),
               most = number_or_zero(limit);
  if (!(a > 0 && s > 0 && most > 0)) return text_of(json());
  return with_decimals(a / s / 1e9, 1) + " (" + with_decimals(100 * a / s / most, 0) + " %)";
}

}  // namespace

Table parts_table(const json& profile) {
  const json parts = field(profile, "parts"), limit = field(profile, "limits.flops_per_second");
  double sum = 0;
  for (const json& part : parts) sum += number_or_zero(field(part, "seconds"));
  Table table = {{"part of a step", "ms", "share", "GFLOP", "GFLOP/s"}};
  for (const json& part : parts) {
    const json seconds = field(part, "seconds");
    const double flops = number_or_zero(field(part, "flops"));
    table.push_back({text_of(field(part, "name")), decimals_of(seconds, 1e-3, 2),
                     with_decimals(sum > 0 ? 100 * number_or_zero(seconds) / sum : 0, 1) + " %",
                     flops > 0 ? with_decimals(flops / 1e9, 2) : text_of(json()),
                     rate_text(field(part, "flops"), seconds, limit)});
  }
  return table;
}

Table operations_table(const json& profile, size_t most) {
  Table table = {{"operation", "calls", "ms", "GFLOP/s", "GB/s"}};
  for (const json& operation : field(profile, "operations")) {
    if (table.size() > most) break;
    const json seconds = field(operation, "seconds");
    table.push_back(
        {text_of(field(operation, "name")), decimals_of(field(operation, "calls"), 1, 0),
         decimals_of(seconds, 1e-3, 3),
         rate_text(field(operation, "flops"), seconds, field(profile, "limits.flops_per_second")),
         rate_text(field(operation, "bytes"), seconds, field(profile, "limits.bytes_per_second"))});
  }
  return table;
}

Table tensors_table(const json& profile) {
  Table table = {{"made in", "MB"}};
  for (const json& tensor : field(profile, "memory.largest"))
    table.push_back(
        {text_of(field(tensor, "made_in")), decimals_of(field(tensor, "bytes"), 1e6, 2)});
  return table;
}

}  // namespace nanoflex
