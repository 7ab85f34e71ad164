// Results on disk that are made once and then found again.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace nanoflex::data {

using Log = std::function<void(const std::string&)>;

// 40 hexadecimal digits of SHA-1.
std::string content_hash(const std::string& bytes);

// Makes `folder` unless it is there: `make` fills a temporary folder, which is then renamed, so
// that an interruption leaves nothing half-made. Another process that makes the same folder is
// waited for. Throws std::invalid_argument when the cache cannot be written, and what `make`
// throws.
void make_once(const std::filesystem::path& folder, const Log& log,
               const std::function<void(const std::filesystem::path& unfinished)>& make);

// compute(), or what it returned when `files` had the same names, sizes and times as now. `purpose`
// tells apart what is computed from the same files. Files changed within the last seconds are
// computed anew, because a clock tick may hide a second change.
std::string remembered(const std::filesystem::path& cache_dir, const std::string& purpose,
                       const std::vector<std::filesystem::path>& files,
                       const std::function<std::string()>& compute);

}  // namespace nanoflex::data
