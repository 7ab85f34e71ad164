#pragma once

#include <string>
#include <vector>

namespace nanoflex {

/// The candidate with the smallest edit distance (Levenshtein) to `name`; the first of equals; ""
/// when none is close enough (more than half of the longer name differs) to be what was meant.
std::string nearest(const std::string& name, const std::vector<std::string>& candidates);

/// "a, b, c".
std::string join(const std::vector<std::string>& names, const std::string& separator = ", ");

}  // namespace nanoflex
