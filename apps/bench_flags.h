#pragma once

#include <cxxopts.hpp>
#include <limits>
#include <stdexcept>
#include <string>

#include "trainer/command_line.h"
#include "trainer/machine.h"

namespace nanoflex {

/// The command line of ./bench, as a bench reads it: what is missing takes its default here. The
/// functions throw std::invalid_argument for values that are none.
class Flags {
 public:
  explicit Flags(const cxxopts::ParseResult& parsed) : parsed_(parsed) {}

  bool has(const std::string& name) const { return parsed_.count(name) > 0; }
  bool quick() const { return has("quick"); }
  std::string text(const std::string& name, const std::string& otherwise = "") const {
    return has(name) ? parsed_[name].as<std::string>() : otherwise;
  }
  int64_t number(const std::string& name, int64_t otherwise) const {
    constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();  // the bench knows its sizes
    return has(name) ? whole_number("bench", name, text(name), kLeast) : otherwise;
  }
  int64_t threads() const {
    const int64_t threads = number("threads", 0);
    if (threads >= 0 && threads <= 4096) return threads;
    throw std::invalid_argument("[bench] --threads must be from 0 to 4096, is " +
                                std::to_string(threads));
  }
  at::Device device() const { return choose_device(text("device", "auto")); }
  int64_t repeat() const {
    const int64_t repeat = number("repeat", all() && quick() ? 2 : 5);
    if (repeat >= 1) return repeat;
    throw std::invalid_argument("[bench] --repeat must be at least 1, is " +
                                std::to_string(repeat));
  }
  /// auto, all, float32 or bfloat16
  std::string dtype_name() const {
    const std::string dtype = text("dtype", "auto");
    for (const char* known : {"auto", "all", "float32", "bfloat16"}) {
      if (dtype == known) return dtype;
    }
    throw std::invalid_argument("[bench] --dtype must be all, float32 or bfloat16, is '" + dtype +
                                "'");
  }
  std::string one_dtype_name() const {
    if (dtype_name() != "all") return dtype_name();
    if (all()) return "auto";
    throw std::invalid_argument("[bench] --dtype all is for ./bench attention and ./bench all");
  }
  at::ScalarType dtype() const { return choose_dtype(one_dtype_name(), device()); }
  /// Whether all benches run, one after another.
  bool all() const { return text("what") == "all"; }

 private:
  const cxxopts::ParseResult& parsed_;
};

}  // namespace nanoflex
