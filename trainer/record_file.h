#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace nanoflex {

/// The JSON of a file that a run wrote, or a stranger: what is returned is safe to copy, compare
/// and print, which nlohmann's library does by recursion. Throws std::invalid_argument, with the
/// reason alone, when there is no such file, and for what no run writes (too large, nested too
/// deeply); nlohmann::json::exception for a file that is not JSON.
nlohmann::json parse_record(const std::filesystem::path& file);

}  // namespace nanoflex
