#include "model/cuda/head_kernel.h"

#include "model/cuda/head_params.h"
#include "model/cuda/sources.h"

namespace nanoflex::cuda {
namespace {

// Those of this folder, and those of attention's that they include.
const std::vector<Source>& all_sources() {
  static const std::vector<Source> sources = [] {
    std::vector<Source> both = embedded_sources();
    const std::vector<Source>& own = embedded_model_sources();
    both.insert(both.end(), own.begin(), own.end());
    return both;
  }();
  return sources;
}

}  // namespace

Kernel head_kernel(Type type) {
  return {.name = "head_loss_" + name_of(type) + ".cu",
          .text =
              "#include \"model/cuda/head_loss.cuh\"\nnamespace nanoflex::cuda {\n"
              "extern \"C\" __global__ void __launch_bounds__(kHeadThreads) " +
              std::string(kKernelName) +
              "(const __grid_constant__ HeadParams params) {\n  head_loss<" + source_name_of(type) +
              ">(params);\n}\n}\n",
          .threads = kHeadThreads,
          .shared_bytes = kHeadSharedBytes,
          .rows = 1,
          .sources = &all_sources()};
}

}  // namespace nanoflex::cuda
