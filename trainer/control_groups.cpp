#include "trainer/control_groups.h"

#include <algorithm>
#include <fstream>

namespace nanoflex {
namespace {

namespace fs = std::filesystem;

// The file names of a version of control groups, and lines of memory.stat that tell of files.
struct Names {
  const char *limit, *used, *files[2];
};
constexpr Names kFirst = {
    "memory.limit_in_bytes", "memory.usage_in_bytes", {"total_active_file", "total_inactive_file"}};
constexpr Names kSecond = {"memory.max", "memory.current", {"active_file", "inactive_file"}};

std::optional<int64_t> number_in(const fs::path& file) {
  int64_t number = 0;
  if (std::ifstream(file) >> number) return number;
  return std::nullopt;  // none, or "max"
}

int64_t bytes_of_files(const fs::path& group, const Names& names) {
  std::ifstream lines(group / "memory.stat");
  std::string name;
  int64_t sum = 0;
  for (int64_t bytes = 0; lines >> name >> bytes;) {
    if (name == names.files[0] || name == names.files[1]) sum += bytes;
  }
  return sum;
}

std::optional<int64_t> free_in(const fs::path& group, const Names& names) {
  const auto limit = number_in(group / names.limit), used = number_in(group / names.used);
  if (!limit || !used) return std::nullopt;
  return std::max<int64_t>(0, *limit - *used + bytes_of_files(group, names));
}

}  // namespace

std::optional<int64_t> control_group_free_bytes(const fs::path& root, const fs::path& groups) {
  std::optional<int64_t> least;
  const auto look = [&](const fs::path& group, const Names& names) {
    const auto free = free_in(group, names);
    if (free && (!least || *free < *least)) least = free;
  };
  std::ifstream lines(groups);
  for (std::string line; std::getline(lines, line);) {  // 0::/group, or 4:memory:/group
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && controllers != "memory") continue;
    const Names& names = controllers.empty() ? kSecond : kFirst;
    const fs::path top = controllers.empty() ? root : root / controllers;
    // A group's limit holds for those below it. In a container its own group is the top one, though
    // it may be told the name that it has outside.
    look(top, names);
    fs::path group = top;
    for (const fs::path& name : fs::path(line.substr(second + 1)).relative_path()) {
      look(group /= name, names);
    }
  }
  return least;
}

}  // namespace nanoflex
