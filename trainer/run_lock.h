#pragma once

#include <filesystem>
#include <memory>

namespace nanoflex {

/// Held by the one process that writes to a run's folder; the system lets go of it when that
/// process ends, however it does.
class RunLock {
 public:
  /// Null when another process holds it. Throws std::invalid_argument when the folder cannot be
  /// written to.
  static std::shared_ptr<const RunLock> try_take(const std::filesystem::path& run);
  /// As try_take(), but throws std::invalid_argument, naming the process, when it is held.
  static std::shared_ptr<const RunLock> take(const std::filesystem::path& run);

  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;
  ~RunLock();

 private:
  explicit RunLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

}  // namespace nanoflex
