// Checksums of files against published values and against each other.
#include "model/durable.h"

#include <gtest/gtest.h>

#include <string>

#include "model/safetensors.h"

namespace nanoflex {
namespace {

// RFC 3720, B.4, and the usual check value; whole and in pieces of odd sizes.
TEST(Crc32c, GivesThePublishedValues) {
  EXPECT_EQ(crc32c(0, "123456789", 9), 0xe3069283);
  EXPECT_EQ(crc32c(0, std::string(32, '\0').data(), 32), 0x8a9136aa);
  EXPECT_EQ(crc32c(0, std::string(32, '\xff').data(), 32), 0x62a8ab43);
  EXPECT_EQ(crc32c(crc32c(crc32c(0, "1", 1), "23456", 5), "789", 3), 0xe3069283);
}

TEST(FileSum, OfASafetensorsFileIsThatOfItsBytes) {
  const auto file = std::filesystem::path(testing::TempDir()) / "nanoflex_sum.safetensors";
  const FileSum written =
      write_safetensors(file, {{"large", at::arange(200'000)}, {"none", at::zeros({0})}});
  EXPECT_EQ(written, sum_file(file));
  EXPECT_EQ(written.bytes, std::filesystem::file_size(file));
  EXPECT_TRUE(read_safetensors(file).at("large").equal(at::arange(200'000)));  // of many pieces
  std::filesystem::remove(file);
  EXPECT_THROW(sum_file(file), std::invalid_argument);
}

}  // namespace
}  // namespace nanoflex
