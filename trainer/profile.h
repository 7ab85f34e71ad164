#pragma once

#include <ATen/Functions.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace nanoflex {

/// Records what LibTorch does from here on, with its own profiler (Kineto). One at a time.
class Profile {
 public:
  explicit Profile(at::Device device);
  ~Profile();
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  /// Stops; writes a Chrome trace, which Perfetto opens, and returns
  /// {launches, launches_are ("kernels" of a GPU or "operations" dispatched),
  ///  operations: [{name, calls, seconds (its device's, without those it calls), flops, bytes}],
  ///  memory: {before_bytes, peak_bytes, largest: [{bytes, made_in}]}}: totals, slowest and largest
  /// first. flops and bytes (read from tensors, and written to new ones) are 0 where not known.
  /// Throws std::invalid_argument when the trace cannot be written.
  nlohmann::ordered_json stop(const std::filesystem::path& file);

 private:
  at::Device device_;
  int64_t bytes_before_;
  bool running_ = true;
};

/// The operations and the memory of stop()'s answer, of what ran on `device`, from a Chrome trace.
nlohmann::ordered_json digest_trace(const nlohmann::json& trace, at::Device device,
                                    const std::map<std::string, double>& flops,
                                    int64_t bytes_before);

}  // namespace nanoflex
