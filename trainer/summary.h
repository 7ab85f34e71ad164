#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "trainer/attention_setup.h"
#include "trainer/budget.h"
#include "trainer/measurement.h"

namespace nanoflex {

int64_t parameter_count(const Gpt& model);

/// summary.json as it stands when a run begins (status "running").
nlohmann::ordered_json begin_summary(const std::string& run_id,
                                     const std::vector<std::string>& command, const Config& config,
                                     at::Device device, const Budget& budget);

/// Fills in status and results.
void end_summary(nlohmann::ordered_json& summary, const std::string& status,
                 const Measurement& measurement, const Budget& budget, at::Device device,
                 const AttentionSetup& attention);

/// The results in a few lines for a person.
std::vector<std::string> headline(const nlohmann::ordered_json& summary);

}  // namespace nanoflex
