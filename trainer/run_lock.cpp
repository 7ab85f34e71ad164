#include "trainer/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>

namespace nanoflex {
namespace {

std::filesystem::path lock_file(const std::filesystem::path& run) { return run / ".lock"; }

}  // namespace

std::shared_ptr<const RunLock> RunLock::try_take(const std::filesystem::path& run) {
  const int descriptor = ::open(lock_file(run).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) {
    throw std::invalid_argument("[run] cannot write to " + run.string() + ": " +
                                std::strerror(errno) + "; name another place with --runs-dir");
  }
  std::shared_ptr<const RunLock> lock(new RunLock(descriptor));
  // A file system without locks must not stop the run: there the user's care has to do.
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return nullptr;
  // For the message below alone, so a full disk does not matter.
  const std::string process = std::to_string(::getpid()) + "\n";
  if (::ftruncate(descriptor, 0) == 0) {
    [[maybe_unused]] const auto written = ::write(descriptor, process.data(), process.size());
  }
  return lock;
}

std::shared_ptr<const RunLock> RunLock::take(const std::filesystem::path& run) {
  auto lock = try_take(run);
  if (!lock) {
    std::string process;
    std::ifstream(lock_file(run)) >> process;
    throw std::invalid_argument("[run] " + run.string() + " is being written by process " +
                                process + "; stop it, or wait until it has ended");
  }
  return lock;
}

RunLock::~RunLock() { ::close(descriptor_); }

}  // namespace nanoflex
