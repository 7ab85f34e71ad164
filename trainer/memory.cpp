#include "trainer/memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/util/Exception.h>
#include <malloc.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <limits>
#include <string>

namespace nanoflex {
namespace {

// A line of a file of /proc such as "MemTotal:  16384 kB", in bytes; `otherwise` without one.
int64_t proc_bytes(const char* file, const std::string& name, int64_t otherwise) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(name)) return std::stoll(line.substr(name.size())) * 1024;
  }
  return otherwise;
}

// What live tensors may take together now: what the machine has free and what this process holds
// already, less a twentieth. Linux grants more, and then stands still, or kills the process, when
// it is used.
int64_t tensor_bytes_that_fit() {
  const int64_t available = proc_bytes("/proc/meminfo", "MemAvailable:", 0);
  const int64_t held = proc_bytes("/proc/self/status", "VmRSS:", 0);
  constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();
  return available > 0 ? (available + held) / 20 * 19 : kUnknown;
}

// Allocates as LibTorch does and keeps count. The heap itself knows how large a block is.
class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* data = take(bytes);
    const auto added = static_cast<int64_t>(malloc_usable_size(data));
    const int64_t live = live_.fetch_add(added) + added;
    int64_t peak = peak_.load();
    while (live > peak && !peak_.compare_exchange_weak(peak, live)) {
    }
    report(data, added, live);
    return {data, data, &CountingAllocator::free, at::Device(at::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &CountingAllocator::free; }
  void copy_data(void* destination, const void* source, size_t bytes) const override {
    default_copy_data(destination, source, bytes);
  }

  void limit(int64_t bytes) { limit_ = bytes; }
  int64_t live() const { return live_; }
  int64_t refused() const { return refused_; }
  int64_t peak() const { return peak_; }
  void reset_peak() { peak_ = live_.load(); }

 private:
  static void free(void* data);

  // Asks the machine once for every 64 MB that the peak rises, which ends with the first steps.
  bool fits(int64_t more) {
    constexpr int64_t kStep = 64 << 20;
    if (more < 0 || more > limit_ - live_) return false;
    const int64_t wanted = live_ + more;
    if (wanted <= asked_) return true;
    if (wanted > tensor_bytes_that_fit()) return false;
    asked_ = wanted + kStep;
    return true;
  }

  void* take(size_t bytes) {
    const auto more = static_cast<int64_t>(bytes);
    try {
      TORCH_CHECK_WITH(OutOfMemoryError, fits(more), "out of memory");
      return c10::alloc_cpu(bytes);
    } catch (const c10::Error&) {
      refused_ = more;
      throw;
    }
  }

  // To trainer/profile.h, when it records.
  static void report(void* data, int64_t added, int64_t live) {
    if (!c10::memoryProfilingEnabled()) return;
    c10::reportMemoryUsageToProfiler(data, added, live, 0, at::Device(at::kCPU));
  }

  std::atomic<int64_t> live_ = 0, peak_ = 0, refused_ = 0, asked_ = 64 << 20,
                       limit_ = std::numeric_limits<int64_t>::max();
};

// LibTorch keeps one allocator a device for the whole process; this is ours.
CountingAllocator& counting_allocator() {
  static auto* allocator = new CountingAllocator;  // outlives every static tensor
  return *allocator;
}

void CountingAllocator::free(void* data) {
  const auto freed = static_cast<int64_t>(malloc_usable_size(data));
  report(data, -freed, counting_allocator().live_.fetch_sub(freed) - freed);
  c10::free_cpu(data);
}

c10::CachingDeviceAllocator::DeviceStats device_stats(at::Device device) {
  return at::getDeviceAllocator(device.type())->getDeviceStats(device.index());
}

constexpr size_t kAggregate = 0;  // the statistics over all pools

}  // namespace

void track_cpu_memory() {
  // What one tensor leaves the next one gets, rather than the system, which would hand out the same
  // pages anew, zeroed, at every step.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
  c10::SetCPUAllocator(&counting_allocator(), /*priority=*/100);
}

int64_t live_tensor_bytes(at::Device device) {
  if (device.is_cpu()) return counting_allocator().live();
  return device_stats(device).allocated_bytes[kAggregate].current;
}

int64_t peak_tensor_bytes(at::Device device) {
  if (device.is_cpu()) return counting_allocator().peak();
  return device_stats(device).allocated_bytes[kAggregate].peak;
}

int64_t peak_reserved_bytes(at::Device device) {
  if (device.is_cpu()) return 0;
  return device_stats(device).reserved_bytes[kAggregate].peak;
}

void reset_peak_memory(at::Device device) {
  if (device.is_cpu()) {
    counting_allocator().reset_peak();
  } else {
    at::getDeviceAllocator(device.type())->resetPeakStats(device.index());
  }
}

int64_t free_memory_bytes(at::Device device) {
  if (!device.is_cpu()) {
    // What the driver has, and what LibTorch keeps of it without use.
    const auto [free, total] = at::getDeviceAllocator(device.type())->getMemoryInfo(device.index());
    return static_cast<int64_t>(free) + peak_reserved_bytes(device) - live_tensor_bytes(device);
  }
  malloc_trim(0);  // what the process keeps of freed tensors is there for new ones
  constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();
  int64_t free = proc_bytes("/proc/meminfo", "MemAvailable:", kUnknown);
  rlimit process{};  // `ulimit -v`
  if (getrlimit(RLIMIT_AS, &process) == 0 && process.rlim_cur != RLIM_INFINITY) {
    const int64_t used = proc_bytes("/proc/self/status", "VmSize:", 0);
    free = std::min(free, static_cast<int64_t>(process.rlim_cur) - used);
  }
  return std::max<int64_t>(free, 0);
}

void limit_tensor_bytes(int64_t bytes) { counting_allocator().limit(bytes); }

int64_t refused_tensor_bytes() { return counting_allocator().refused(); }

int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * int64_t{1024};
}

void synchronize(at::Device device) {
  if (!device.is_cpu()) {
    c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
  }
}

}  // namespace nanoflex
