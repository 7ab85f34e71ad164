// A comparison as tables of texts, for whatever writes them down.
#pragma once

#include "trainer/comparison.h"
#include "trainer/markdown.h"

namespace nanoflex {

Table numbers_table(const Comparison& comparison);  ///< a row a run
Table groups_table(const Comparison& comparison);   ///< means over seeds; no rows without groups
Table keys_table(const Comparison& comparison);     ///< the config keys that differ
Table profile_table(const Comparison& comparison);  ///< a column a profiled run; no rows without

}  // namespace nanoflex
