// The headers that nearly every file needs and that cost seconds to read: compiled once. Each costs
// every file some time still, for the templates that it leaves open: torch/types.h a second more
// than these, torch/autograd.h another.
#pragma once

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>
