#pragma once

#include <filesystem>
#include <string>

#include "trainer/attention_setup.h"
#include "trainer/budget.h"
#include "trainer/config.h"

namespace nanoflex {

/// What a run says of itself before its first step: "run ID: 1.2 M parameters, ...".
std::string announcement(const std::string& run_id, int64_t parameters, const Budget& budget,
                         const AttentionSetup& attention, const std::string& place);

/// Where a run that stops can be taken up again; `step`: of the last checkpoint, 0: none.
std::string last_checkpoint(const std::filesystem::path& run, int64_t step);

/// Why a run stops at a step: `shortage` as memory_shortage() says, or numbers that are not finite.
std::string shortage_message(int64_t step, const std::string& shortage, const Config& config,
                             const std::string& last_checkpoint);
std::string not_finite_message(int64_t step, const std::string& what,
                               const std::string& last_checkpoint);

}  // namespace nanoflex
