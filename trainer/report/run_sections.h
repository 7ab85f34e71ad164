// The parts of a run's page, as HTML. What the record lacks is left out.
#pragma once

#include <string>

#include "trainer/report/record.h"

namespace nanoflex {

std::string header_section(const FullRecord& record);     ///< which run, how it ended, what it did
std::string cards_section(const FullRecord& record);      ///< the numbers to look at first
std::string attention_section(const FullRecord& record);  ///< the mask's pictures and what it saves
std::string samples_section(const FullRecord& record);
std::string profile_section(const FullRecord& record);
std::string settings_section(const FullRecord& record);  ///< config, environment, budget

}  // namespace nanoflex
