#pragma once

#include <ATen/Functions.h>

#include <map>
#include <string>

namespace nanoflex {

/// The states of LibTorch's generators that a step on this device may draw from: "random.cpu", and
/// "random.cuda" on a GPU.
std::map<std::string, at::Tensor> random_state(at::Device device);

/// Sets the generators of which `saved` holds the state.
void set_random_state(const std::map<std::string, at::Tensor>& saved, at::Device device);

}  // namespace nanoflex
