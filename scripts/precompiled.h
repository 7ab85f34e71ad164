// The headers that nearly every file needs and that cost seconds to read: compiled once.
#pragma once

#include <torch/autograd.h>
#include <torch/types.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>
