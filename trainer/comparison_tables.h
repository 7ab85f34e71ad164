// A comparison as tables of texts, for whatever writes them down.
#pragma once

#include <string>
#include <vector>

#include "trainer/comparison.h"

namespace nanoflex {

using Table = std::vector<std::vector<std::string>>;  ///< rows of cells, the first its heading

Table numbers_table(const Comparison& comparison);  ///< a row a run
Table groups_table(const Comparison& comparison);   ///< means over seeds; no rows without groups
Table keys_table(const Comparison& comparison);     ///< the config keys that differ
Table profile_table(const Comparison& comparison);  ///< a column a profiled run; no rows without

}  // namespace nanoflex
