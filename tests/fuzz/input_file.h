// What the fuzz targets share: their input as a file, since that is what the readers read.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

namespace nanoflex {

/// A folder in memory where the machine has one, removed at the end, with one file of that name.
class InputFile {
 public:
  explicit InputFile(const std::string& name) {
    const bool memory = std::filesystem::is_directory("/dev/shm");
    const std::filesystem::path root =
        memory ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path();
    folder_ = root / ("nanoflex_fuzz_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
    file_ = folder_ / name;
  }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  void write(const uint8_t* data, size_t size) const {
    std::ofstream out(file_, std::ios::binary | std::ios::trunc);
    out.write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
    if (!out.flush()) throw std::runtime_error("cannot write " + file_.string());
  }

  const std::filesystem::path& path() const { return file_; }
  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path folder_, file_;
};

/// Ends the process, as libFuzzer expects of a target that found something.
inline void require(bool condition, const std::string& what) {
  if (condition) return;
  fprintf(stderr, "%s\n", what.c_str());
  std::abort();
}

}  // namespace nanoflex
