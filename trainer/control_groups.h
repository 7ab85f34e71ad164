#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace nanoflex {

/// Bytes that the control groups of this process leave it of memory, as a container's limit does;
/// nothing where none is set. What is kept of files counts as free: it goes when it is wanted.
/// `root`: where control groups are mounted; `groups`: this process's, as /proc/self/cgroup has
/// them (cgroups(7)).
std::optional<int64_t> control_group_free_bytes(
    const std::filesystem::path& root = "/sys/fs/cgroup",
    const std::filesystem::path& groups = "/proc/self/cgroup");

}  // namespace nanoflex
