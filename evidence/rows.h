// What the rows of every bench hold, and how a page shows them.
#pragma once

#include <ATen/Functions.h>

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "evidence/measure.h"

namespace nanoflex {

/// What a row is about.
struct RowName {
  std::string what;  ///< the row's "case"
  std::string backend, pass;
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
};

/// {case, backend, pass, device, dtype, median_ms, spread, repeats, share_of_gemm (null), ratios
/// (none), peak_bytes}.
nlohmann::ordered_json measured_row(const RowName& name, const Measured& measured);
/// {case, backend, pass, device, dtype, skipped}.
nlohmann::ordered_json skipped_row(const RowName& name, const std::string& reason);

/// Sets ratios.PEER, how many times faster the row is, and ratio_ranges.PEER, [least, most] of the
/// repeats that ran in turn.
void add_ratio(nlohmann::ordered_json& row, const std::string& peer, const Measured& own,
               const Measured& peers);
/// The same against each other one of them, by its name.
void add_ratios(nlohmann::ordered_json& row, std::span<const Measured> all, size_t own);

/// "1.25x"; followed by "(spread too wide to say)" where low .. high holds `reference`, so that the
/// repeats do not tell on which side of it the ratio is.
std::string ratio_text(const Ratio& ratio, double reference = 1);
/// The same of a row's ratio; "-" when it has none to that peer.
std::string ratio_text(const nlohmann::ordered_json& row, const std::string& peer);

/// "5 %"; "one run" where there is nothing to compare.
std::string spread_text(const nlohmann::ordered_json& row);
/// Its peak_bytes in MB; "-" when it has none.
std::string megabytes(const nlohmann::ordered_json& row);

/// A list of the rows that were skipped, with their reasons; "" when none was.
std::string skipped_markdown(const nlohmann::ordered_json& rows);

}  // namespace nanoflex
