#include "data/cache.h"

#include <c10/util/hash.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <fstream>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "data/atomic_file.h"

namespace nanoflex::data {

namespace fs = std::filesystem;

namespace {

constexpr time_t kSettledSeconds = 3;

void create_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    throw std::invalid_argument("[data] cannot create the cache folder " + folder.string() + ": " +
                                error.message());
  }
}

// An advisory lock on a file, held until destruction, also released when the process dies.
class FileLock {
 public:
  FileLock(const fs::path& path, const Log& log)
      : descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    if (descriptor_ < 0) {
      throw std::invalid_argument("[data] cannot write the cache file " + path.string() + ": " +
                                  std::strerror(errno));
    }
    bool waiting = false;
    // Some network file systems know no locks; there the rename alone keeps the cache whole.
    while (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 &&
           (errno == EWOULDBLOCK || errno == EINTR)) {
      if (!waiting && log) log("[data] waiting for another process that prepares the same data");
      waiting = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  ~FileLock() { ::close(descriptor_); }

 private:
  int descriptor_;
};

class UnfinishedFolder {
 public:
  explicit UnfinishedFolder(fs::path path) : path_(std::move(path)) {
    fs::remove_all(path_);
    create_folder(path_);
  }
  UnfinishedFolder(const UnfinishedFolder&) = delete;
  UnfinishedFolder& operator=(const UnfinishedFolder&) = delete;
  ~UnfinishedFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

struct FileState {
  std::string text;
  time_t changed = 0;
};

FileState state_of(const fs::path& file) {
  struct stat s {};
  if (::stat(file.c_str(), &s) != 0) return {};
  std::error_code error;
  std::string text = fs::weakly_canonical(file, error).string();
  for (const int64_t value :
       {int64_t(s.st_ino), int64_t(s.st_size), int64_t(s.st_mtim.tv_sec),
        int64_t(s.st_mtim.tv_nsec), int64_t(s.st_ctim.tv_sec), int64_t(s.st_ctim.tv_nsec)}) {
    text += '\0' + std::to_string(value);
  }
  return {text + '\n', std::max(s.st_mtim.tv_sec, s.st_ctim.tv_sec)};
}

}  // namespace

std::string content_hash(const std::string& bytes) { return c10::sha1(bytes + '\0').str(); }

void make_once(const fs::path& folder, const Log& log,
               const std::function<void(const fs::path&)>& make) {
  if (fs::exists(folder)) return;
  create_folder(folder.parent_path());
  const FileLock lock(folder.string() + ".lock", log);
  if (fs::exists(folder)) return;
  const UnfinishedFolder unfinished(folder.string() + ".unfinished");
  make(unfinished.path());
  std::error_code error;
  fs::rename(unfinished.path(), folder, error);
  if (error && !fs::exists(folder)) {
    throw std::invalid_argument("[data] cannot name " + folder.string() + ": " + error.message());
  }
}

std::string remembered(const fs::path& cache_dir, const std::string& purpose,
                       const std::vector<fs::path>& files,
                       const std::function<std::string()>& compute) {
  std::string states = purpose + "\n";
  time_t last_change = 0;
  for (const fs::path& file : files) {
    const FileState state = state_of(file);
    states += state.text;
    last_change = std::max(last_change, state.changed);
  }
  const fs::path memory = cache_dir / "remembered" / content_hash(states);
  std::string value;
  if (std::getline(std::ifstream(memory), value) && !value.empty()) return value;
  value = compute();
  if (std::time(nullptr) - last_change <= kSettledSeconds) return value;
  try {
    create_folder(memory.parent_path());
    write_atomically(memory, value + "\n");
  } catch (const std::exception&) {
    // A cache that cannot be written costs time at the next start, nothing more.
  }
  return value;
}

}  // namespace nanoflex::data
