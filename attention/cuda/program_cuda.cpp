#include "attention/cuda/program_cuda.h"

#include <deque>
#include <mutex>

namespace nanoflex::cuda {
namespace {

/// A block mask's kinds in a device's memory. Masks are few and live long (flex::block_mask keeps
/// them), so that the copies of the last ones are kept too.
class DeviceKinds {
 public:
  at::Tensor get(const std::shared_ptr<const flex::BlockMask>& mask, at::Device device) {
    const std::lock_guard lock(mutex_);
    for (const Entry& entry : entries_) {
      if (entry.mask == mask && entry.kinds.device() == device) return entry.kinds;
    }
    entries_.push_front({mask, mask->kinds.to(device)});
    if (entries_.size() > kMostKept) entries_.pop_back();
    return entries_.front().kinds;
  }

 private:
  static constexpr size_t kMostKept = 64;
  struct Entry {
    std::shared_ptr<const flex::BlockMask> mask;
    at::Tensor kinds;
  };
  std::mutex mutex_;
  std::deque<Entry> entries_;
};

at::Tensor kinds_of(const FusedOptions& options, at::Device device) {
  return options.blocks ? device_kinds(options.blocks, device) : at::Tensor();
}

BlockKinds blocks_of(const FusedOptions& options, const at::Tensor& kinds) {
  if (!options.blocks) return {};
  const flex::BlockMask& mask = *options.blocks;
  return {.kinds = kinds.const_data_ptr<uint8_t>(),
          .batch = mask.batches == 1 ? 0 : kinds.stride(0),
          .head = mask.heads == 1 ? 0 : kinds.stride(1),
          .row = static_cast<int>(kinds.stride(2)),
          .size = static_cast<int>(mask.block_size)};
}

}  // namespace

at::Tensor device_kinds(const std::shared_ptr<const flex::BlockMask>& mask, at::Device device) {
  static DeviceKinds kinds;
  return kinds.get(mask, device);
}

Program::Program(const FusedOptions& options, at::Device device)
    : kinds_(kinds_of(options, device)),
      source_(flex::cuda_source(options.mask, options.score)),
      arguments_(source_.arguments(blocks_of(options, kinds_))) {}

}  // namespace nanoflex::cuda
