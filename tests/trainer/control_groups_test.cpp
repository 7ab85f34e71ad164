#include "trainer/control_groups.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace nanoflex {
namespace {

namespace fs = std::filesystem;

class ControlGroupsTest : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(root_); }
  void TearDown() override { fs::remove_all(root_); }

  void write(const fs::path& file, const std::string& text) const {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
  }
  std::optional<int64_t> free_bytes() const {
    return control_group_free_bytes(root_, root_ / "groups");
  }

  const fs::path root_ = fs::temp_directory_path() / ("groups_" + std::to_string(getpid()));
};

TEST_F(ControlGroupsTest, TheTightestLimitOnTheWayCountsAndFilesAreFree) {
  write("groups", "0::/outer/inner\n");
  write("memory.max", "max\n");
  write("memory.current", "90\n");
  write("outer/memory.max", "1000\n");
  write("outer/memory.current", "700\n");
  write("outer/memory.stat", "anon 600\ninactive_file 30\nactive_file 20\n");
  write("outer/inner/memory.max", "900\n");
  write("outer/inner/memory.current", "100\n");
  EXPECT_EQ(free_bytes(), 350);
}

// As a container sees it: its group is the top one, by whatever name.
TEST_F(ControlGroupsTest, ReadsTheFirstVersionToo) {
  write("groups", "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n");
  write("memory/memory.limit_in_bytes", "500\n");
  write("memory/memory.usage_in_bytes", "200\n");
  EXPECT_EQ(free_bytes(), 300);
}

TEST_F(ControlGroupsTest, WithoutALimitThereIsNone) {
  write("groups", "0::/\n");
  write("memory.max", "max\n");
  write("memory.current", "90\n");
  EXPECT_EQ(free_bytes(), std::nullopt);
}

}  // namespace
}  // namespace nanoflex
