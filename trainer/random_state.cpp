#include "trainer/random_state.h"

#include <ATen/Context.h>

#include <mutex>

namespace nanoflex {
namespace {

std::map<std::string, at::Generator> generators(at::Device device) {
  std::map<std::string, at::Generator> result;
  for (const at::Device each : {at::Device(at::kCPU), device}) {
    const std::string type = c10::DeviceTypeName(each.type(), /*lower_case=*/true);
    result["random." + type] = at::globalContext().defaultGenerator(each);
  }
  return result;
}

}  // namespace

std::map<std::string, at::Tensor> random_state(at::Device device) {
  std::map<std::string, at::Tensor> result;
  for (auto [name, generator] : generators(device)) {
    const std::lock_guard lock(generator.mutex());
    result[name] = generator.get_state();
  }
  return result;
}

void set_random_state(const std::map<std::string, at::Tensor>& saved, at::Device device) {
  for (auto [name, generator] : generators(device)) {
    const auto found = saved.find(name);
    if (found == saved.end()) continue;  // saved on another kind of device
    const std::lock_guard lock(generator.mutex());
    generator.set_state(found->second);
  }
}

}  // namespace nanoflex
