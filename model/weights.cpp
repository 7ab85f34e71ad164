#include "model/weights.h"

#include <ATen/core/grad_mode.h>

#include <cmath>
#include <sstream>
#include <stdexcept>

#include "model/safetensors.h"

namespace nanoflex {

FileSum save_weights(const Gpt& model, const std::filesystem::path& file) {
  std::map<std::string, at::Tensor> tensors;
  for (const Parameter& parameter : model.parameters()) {
    tensors[parameter.name] = parameter.value.detach();
  }
  return write_safetensors(file, tensors);
}

void load_weights(Gpt& model, const std::filesystem::path& file) {
  std::map<std::string, at::Tensor> tensors = read_safetensors(file);
  std::ostringstream problems;
  for (const Parameter& parameter : model.parameters()) {
    const auto found = tensors.find(parameter.name);
    if (found == tensors.end()) {
      problems << "; " << parameter.name << " is missing";
    } else if (found->second.sizes() != parameter.value.sizes()) {
      problems << "; " << parameter.name << " must be " << parameter.value.sizes() << ", is "
               << found->second.sizes();
    } else if (!found->second.is_floating_point()) {
      problems << "; " << parameter.name << " must be floating point, is "
               << found->second.scalar_type();
    }
  }
  for (const auto& [name, tensor] : tensors) {
    const auto& known = model.parameters();
    const auto same = [&name = name](const Parameter& parameter) { return parameter.name == name; };
    if (std::none_of(known.begin(), known.end(), same)) problems << "; " << name << " is unknown";
  }
  if (!problems.str().empty()) {
    throw std::invalid_argument("[model] " + file.string() + " does not fit this model" +
                                problems.str());
  }
  const at::NoGradGuard no_grad;
  for (const Parameter& parameter : model.parameters()) {
    at::Tensor(parameter.value).copy_(tensors.at(parameter.name));
  }
}

bool finite_weights(const Gpt& model) {
  const at::NoGradGuard no_grad;
  at::Tensor total = at::zeros({}, model.parameters().front().value.options());
  for (const Parameter& parameter : model.parameters()) total += parameter.value.sum();
  return std::isfinite(total.item<double>());
}

}  // namespace nanoflex
