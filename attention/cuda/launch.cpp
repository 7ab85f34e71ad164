#ifdef NANOFLEX_CUDA

#include "attention/cuda/launch.h"

#include <ATen/record_function.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <limits>
#include <map>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

#include "attention/cuda/cubin_cache.h"

namespace nanoflex::cuda {
namespace {

Device describe(int index) {
  const auto attribute = [index](cudaDeviceAttr name) {
    int value = 0;
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&value, name, index));
    return value;
  };
  const int major = attribute(cudaDevAttrComputeCapabilityMajor);
  const int capability = 10 * major + attribute(cudaDevAttrComputeCapabilityMinor);
  return {.capability = capability,
          .multiprocessors = attribute(cudaDevAttrMultiProcessorCount),
          .l2_bytes = attribute(cudaDevAttrL2CacheSize),
          .architecture = "sm_" + std::to_string(capability) + (major >= 9 ? "a" : "")};
}

// Like C10_CUDA_CHECK, but says what the kernel was: one of many that are made as they are met.
void check(cudaError_t error, const std::string& what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // or the next call of LibTorch's would report it again
  throw std::runtime_error("[cuda] " + what + ": " + cudaGetErrorString(error));
}

// NANOFLEX_CUDA_SYNC=1 waits for each kernel, so that what goes wrong in one is told of that one.
bool waits_for_each() {
  static const char* const value = std::getenv("NANOFLEX_CUDA_SYNC");
  return value != nullptr && std::string(value) == "1";
}

/// Kernels that this process has loaded. They stay loaded: unloading at exit would meet a CUDA
/// run-time that is gone.
class LoadedKernels {
 public:
  cudaKernel_t get(const Kernel& kernel, const std::string& architecture) {
    const std::lock_guard<std::mutex> lock(mutex_);
    cudaKernel_t& loaded = kernels_[{architecture, kernel.text}];
    if (loaded == nullptr) loaded = load(kernel, architecture);
    return loaded;
  }

 private:
  static cudaKernel_t load(const Kernel& kernel, const std::string& architecture) {
    const std::string image =
        CubinCache().get(kernel.name, kernel.text, *kernel.sources, architecture).image;
    cudaLibrary_t library = nullptr;
    cudaKernel_t loaded = nullptr;
    check(cudaLibraryLoadData(&library, image.data(), nullptr, nullptr, 0, nullptr, nullptr, 0),
          kernel.name + ", made for " + architecture +
              ", cannot be loaded; the driver must be of CUDA 13 or newer");
    check(cudaLibraryGetKernel(&loaded, library, kKernelName),
          kernel.name + " is not in its image");
    return loaded;
  }

  std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, cudaKernel_t> kernels_;
};

}  // namespace

Type type_of(c10::ScalarType type) {
  return type == c10::kBFloat16 ? Type::bfloat16
         : type == c10::kHalf   ? Type::float16
                                : Type::float32;
}

const Device& current_device() {
  static std::mutex mutex;
  static std::map<int, Device> devices;
  int index = 0;
  C10_CUDA_CHECK(cudaGetDevice(&index));
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = devices.find(index);
  return found != devices.end() ? found->second
                                : devices.emplace(index, describe(index)).first->second;
}

void launch(const Kernel& kernel, const Grid& grid, std::initializer_list<const void*> params) {
  static LoadedKernels kernels;
  if (grid.x == 0 || grid.y == 0) return;
  if (grid.x > std::numeric_limits<int32_t>::max() || grid.y > 65535) {
    throw std::invalid_argument("[cuda] " + kernel.name + " would need " + std::to_string(grid.x) +
                                " x " + std::to_string(grid.y) + " blocks; use a smaller batch");
  }
  RECORD_FUNCTION(kernel.name.c_str(), c10::ArrayRef<const c10::IValue>{});  // for profiles
  const void* loaded = kernels.get(kernel, current_device().architecture);
  // Beyond 48 KB a kernel has to ask, on each device; asking again costs next to nothing.
  check(cudaFuncSetAttribute(loaded, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             kernel.shared_bytes),
        kernel.name + " needs " + std::to_string(kernel.shared_bytes) + " bytes of shared memory");
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y));
  config.blockDim = dim3(static_cast<unsigned>(kernel.threads));
  config.dynamicSmemBytes = static_cast<size_t>(kernel.shared_bytes);
  config.stream = c10::cuda::getCurrentCUDAStream();
  std::vector<void*> arguments;
  for (const void* one : params) arguments.push_back(const_cast<void*>(one));
  check(cudaLaunchKernelExC(&config, loaded, arguments.data()), kernel.name);
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  if (!waits_for_each() || cudaStreamIsCapturing(config.stream, &capturing) != cudaSuccess ||
      capturing != cudaStreamCaptureStatusNone) {
    return;
  }
  check(cudaStreamSynchronize(config.stream), kernel.name);
}

}  // namespace nanoflex::cuda

#endif
