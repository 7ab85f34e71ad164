#pragma once

#include <string>
#include <vector>

namespace nanoflex::cuda {

/// A file that CUDA sources include by this name.
struct Source {
  std::string name, text;
};

/// attention/cuda/*.cuh and the headers they share with the host, embedded at build time (see
/// embed.cmake).
const std::vector<Source>& embedded_sources();

}  // namespace nanoflex::cuda
