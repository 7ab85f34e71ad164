// The headers that nearly every file needs and that cost seconds to read: compiled once. Each costs
// every file some time still, for the templates that it leaves open: torch/autograd.h a second.
#pragma once

#include <torch/types.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>
