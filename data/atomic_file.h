// Files that are either whole or not there.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace nanoflex::data {

// Writes under a temporary name beside `path`; commit() makes it durable and gives it its name,
// replacing what was there. Without commit() nothing is left behind. I/O failures throw
// std::invalid_argument.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  void append(std::string_view bytes);
  void rewrite(int64_t offset, std::string_view bytes);
  void commit();

 private:
  [[noreturn]] void fail(const std::string& doing) const;

  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
};

void write_atomically(const std::filesystem::path& path, std::string_view bytes);

}  // namespace nanoflex::data
