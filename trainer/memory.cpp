#include "trainer/memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/core/impl/alloc_cpu.h>
#include <malloc.h>
#include <sys/resource.h>

#include <atomic>

namespace nanoflex {
namespace {

// Allocates as LibTorch does and keeps count. The heap itself knows how large a block is.
class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* data = c10::alloc_cpu(bytes);
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

  int64_t live() const { return live_; }
  int64_t peak() const { return peak_; }
  void reset_peak() { peak_ = live_.load(); }

 private:
  static void free(void* data);

  // To trainer/profile.h, when it records.
  static void report(void* data, int64_t added, int64_t live) {
    if (!c10::memoryProfilingEnabled()) return;
    c10::reportMemoryUsageToProfiler(data, added, live, 0, at::Device(at::kCPU));
  }

  std::atomic<int64_t> live_ = 0, peak_ = 0;
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
