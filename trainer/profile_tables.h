// A profile as tables of texts, for whatever writes them down.
#pragma once

#include <nlohmann/json.hpp>

#include "trainer/markdown.h"

namespace nanoflex {

/// All of a profile.json, per step; "–" stands for what it lacks. Rates have their share of what
/// the machine reaches in brackets.
Table parts_table(const nlohmann::json& profile);
Table operations_table(const nlohmann::json& profile, size_t most);  ///< the slowest first
Table tensors_table(const nlohmann::json& profile);                  ///< live at the peak

}  // namespace nanoflex
