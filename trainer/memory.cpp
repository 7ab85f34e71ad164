#include "trainer/memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/util/Exception.h>
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

#include "trainer/control_groups.h"

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

constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();

// What the machine has free, and the container that this runs in.
int64_t available_bytes() {
  const int64_t machine = proc_bytes("/proc/meminfo", "MemAvailable:", kUnknown);
  return std::min(machine, control_group_free_bytes().value_or(machine));
}

std::optional<int64_t> limit_of_heap;

// What the heap may hold: what the machine has free and what this process holds already, less a
// twentieth. Linux grants more, and then stands still, or kills the process, when it is used.
int64_t heap_bytes_that_fit() {
  if (limit_of_heap) return *limit_of_heap;
  const int64_t available = available_bytes();
  const int64_t held = proc_bytes("/proc/self/status", "RssAnon:", 0);
  return available < kUnknown ? (available + held) / 20 * 19 : kUnknown;
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
  RefusedTensor refused() const { return {refused_, free_then_}; }
  int64_t peak() const { return peak_; }
  void reset_peak() { peak_ = live_.load(); }

 private:
  static void free(void* data);

  void* take(size_t bytes) {
    const auto wanted = static_cast<int64_t>(bytes);
    if (wanted < 0 || wanted > limit_ - live_) refuse(wanted, limit_ - live_);
    void* data = nullptr;
    try {
      data = c10::alloc_cpu(bytes);
    } catch (const c10::Error&) {
      refuse(wanted, free_memory_bytes(at::Device(at::kCPU)));
    }
    if (heap_bytes() > checked_ && !fits(wanted)) {
      c10::free_cpu(data);
      malloc_trim(0);
      refuse(wanted, heap_bytes_that_fit() - bytes_in_use());
    }
    return data;
  }

  // Whether what has been handed out can all be written to. The machine is asked once for every 64
  // MB that the heap grows, which ends with the first steps.
  bool fits(int64_t wanted) {
    constexpr int64_t kStep = 64 << 20;
    // Once the heap with its holes is larger than what there is, once for as much that is handed
    // out: then freed pages go back to the machine, and what is in use must fit.
    if (tight_ && (since_ += wanted) < kStep) return true;
    since_ = 0;
    const int64_t fitting = heap_bytes_that_fit(), heap = heap_bytes();
    tight_ = heap > fitting;
    if (!tight_) {
      checked_ = heap + kStep;
      return true;
    }
    malloc_trim(0);
    return bytes_in_use() <= heap_bytes_that_fit();
  }

  [[noreturn]] void refuse(int64_t bytes, int64_t free) {
    refused_ = bytes;
    free_then_ = std::max<int64_t>(free, 0);
    C10_THROW_ERROR(OutOfMemoryError, "out of memory");
  }

  // Since this began to count, with what has been freed since.
  int64_t heap_bytes() const { return static_cast<char*>(sbrk(0)) - begin_; }
  static int64_t bytes_in_use() { return static_cast<int64_t>(mallinfo2().uordblks); }

  // To trainer/profile.h, when it records.
  static void report(void* data, int64_t added, int64_t live) {
    if (!c10::memoryProfilingEnabled()) return;
    c10::reportMemoryUsageToProfiler(data, added, live, 0, at::Device(at::kCPU));
  }

  const char* begin_ = static_cast<char*>(sbrk(0));
  std::atomic<int64_t> live_ = 0, peak_ = 0, refused_ = 0, free_then_ = 0, since_ = 0,
                       checked_ = 64 << 20, limit_ = std::numeric_limits<int64_t>::max();
  std::atomic<bool> tight_ = false;
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
  std::ofstream("/proc/self/clear_refs") << "5";  // VmHWM begins anew
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
    const int64_t reserved = device_stats(device).reserved_bytes[kAggregate].current;
    return static_cast<int64_t>(free) + reserved - live_tensor_bytes(device);
  }
  malloc_trim(0);  // what the process keeps of freed tensors is there for new ones
  int64_t free = available_bytes();
  rlimit process{};  // `ulimit -v`
  if (getrlimit(RLIMIT_AS, &process) == 0 && process.rlim_cur != RLIM_INFINITY) {
    const int64_t used = proc_bytes("/proc/self/status", "VmSize:", 0);
    free = std::min(free, static_cast<int64_t>(process.rlim_cur) - used);
  }
  return std::max<int64_t>(free, 0);
}

void limit_heap_bytes(std::optional<int64_t> bytes) { limit_of_heap = bytes; }

void limit_tensor_bytes(int64_t bytes) { counting_allocator().limit(bytes); }

RefusedTensor refused_tensor() { return counting_allocator().refused(); }

int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return proc_bytes("/proc/self/status", "VmHWM:", usage.ru_maxrss * int64_t{1024});
}

void synchronize(at::Device device) {
  if (!device.is_cpu()) {
    c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
  }
}

}  // namespace nanoflex
