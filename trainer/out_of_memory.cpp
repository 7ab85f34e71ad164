#include "trainer/out_of_memory.h"

#include <c10/util/Exception.h>

#include <new>

#include "trainer/memory.h"

namespace nanoflex {
namespace {

std::string megabytes(int64_t bytes) {
  return std::to_string((bytes + 500'000) / 1'000'000) + " MB";
}

}  // namespace

std::string first_line(const std::exception& problem) {
  const auto* torch = dynamic_cast<const c10::Error*>(&problem);
  const std::string text = torch ? torch->what_without_backtrace() : problem.what();
  return (torch ? "[torch] " : "") + text.substr(0, text.find('\n'));
}

std::optional<std::string> memory_shortage(const std::exception& problem) {
  const std::string text = first_line(problem);
  // LibTorch's own message for a GPU says how much was asked for and how much was free.
  const size_t gpu = text.find("CUDA out of memory");
  if (gpu != std::string::npos) return text.substr(gpu);
  const bool allocator = dynamic_cast<const c10::OutOfMemoryError*>(&problem) != nullptr ||
                         text.find("DefaultCPUAllocator") != std::string::npos;
  if (!allocator && dynamic_cast<const std::bad_alloc*>(&problem) == nullptr) return std::nullopt;
  if (!allocator) {
    return "out of memory: " + megabytes(free_memory_bytes(at::Device(at::kCPU))) +
           " were free on cpu";
  }
  const RefusedTensor refused = refused_tensor();
  return "out of memory: " + megabytes(refused.bytes) + " were asked for, " +
         megabytes(refused.free) + " were free on cpu";
}

}  // namespace nanoflex
