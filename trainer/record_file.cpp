#include "trainer/record_file.h"

#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <system_error>

namespace nanoflex {
namespace {

constexpr int kMaxDepth = 64;
constexpr uintmax_t kMaxBytes = 1 << 24;

}  // namespace

nlohmann::json parse_record(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error))
    throw std::invalid_argument("there is no such file");
  if (std::filesystem::file_size(file, error) > kMaxBytes || error)
    throw std::invalid_argument("larger than any run record");
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw std::invalid_argument("cannot be read");
  return nlohmann::json::parse(stream, [](int depth, auto, auto&) {
    if (depth > kMaxDepth) throw std::invalid_argument("nested too deeply for a run record");
    return true;
  });
}

}  // namespace nanoflex
