#pragma once

#include <filesystem>
#include <string>

#include "attention/cuda/nvrtc.h"

namespace nanoflex::cuda {

/// Compiled kernels on disk, a file each, named by the hash of all that decides its bytes: sources,
/// options, architecture, NVRTC's version.
class CubinCache {
 public:
  /// NANOFLEX_CACHE, else XDG_CACHE_HOME/nanoflex, else ~/.cache/nanoflex; made when first written.
  static std::filesystem::path default_folder();

  explicit CubinCache(std::filesystem::path folder = default_folder())
      : folder_(std::move(folder)) {}

  struct Found {
    std::string image;
    bool from_disk;
  };
  /// The kernel's cubin, from disk or compiled and kept. A file that is damaged is made again; a
  /// folder that cannot be written costs a compilation each time, nothing else. Throws what
  /// Nvrtc::compile does.
  Found get(const std::string& name, const std::string& text, const std::vector<Source>& headers,
            const std::string& architecture) const;

  /// Where that kernel's file lies.
  std::filesystem::path file_of(const std::string& text, const std::vector<Source>& headers,
                                const std::string& architecture) const;

 private:
  std::filesystem::path folder_;
};

}  // namespace nanoflex::cuda
