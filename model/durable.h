#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace nanoflex {

/// CRC-32C (Castagnoli; RFC 3720, B.4) of bytes that follow those that gave `crc`; 0 to begin.
uint32_t crc32c(uint32_t crc, const void* data, size_t bytes);

/// What tells a file from a damaged copy of it.
struct FileSum {
  uint64_t bytes = 0;
  uint32_t crc32c = 0;
  bool operator==(const FileSum&) const = default;
};

/// The sum of a file on disk. Throws std::invalid_argument when it cannot be read.
FileSum sum_file(const std::filesystem::path& file);

/// Returns once what was written to a file, or the names in a folder, would outlive a power cut.
/// Throws std::system_error.
void flush_to_disk(const std::filesystem::path& path);

}  // namespace nanoflex
