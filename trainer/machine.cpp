#include "trainer/machine.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/cpu/Utils.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <sys/utsname.h>
#include <torch/version.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <stdexcept>
#include <thread>

#include "attention/nearest.h"
#include "trainer/resolve.h"

namespace nanoflex {
namespace {

using nlohmann::json;

#ifdef NANOFLEX_CUDA
constexpr const char* kWithoutCuda = "";
#else
constexpr const char* kWithoutCuda = " (this build is without CUDA, for set-up found no driver)";
#endif

int64_t gpu_count() { return at::hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0; }

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

// The names of the machine's GPUs, each once, as its driver gives them.
std::string gpu_models() {
  std::set<std::string> models;
  std::error_code error;
  for (std::filesystem::directory_iterator gpu("/proc/driver/nvidia/gpus", error), end;
       !error && gpu != end; gpu.increment(error)) {
    std::ifstream info(gpu->path() / "information");
    for (std::string line; std::getline(info, line);) {
      if (!line.starts_with("Model:")) continue;
      const size_t begin = line.find_first_not_of(" \t", line.find(':') + 1);
      if (begin != std::string::npos) models.insert(line.substr(begin));
    }
  }
  return join({models.begin(), models.end()});
}

// The first line that a command prints; empty when it fails.
std::string first_line_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::array<char, 256> buffer{};
  if (!pipe || !fgets(buffer.data(), buffer.size(), pipe.get())) return "";
  const std::string line = buffer.data();
  return line.substr(0, line.find('\n'));
}

}  // namespace

at::Device choose_device(const std::string& name) {
  if (name == "cpu" || (name == "auto" && gpu_count() == 0)) return at::Device(at::kCPU);
  const bool named_gpu = name == "cuda" || name.starts_with("cuda:");
  if (name != "auto" && !named_gpu) {
    throw std::invalid_argument("[machine] device must be auto, cpu, cuda or cuda:N, is '" + name +
                                "'");
  }
  int64_t index = 0;
  if (name.starts_with("cuda:")) {
    const std::string digits = name.substr(5);
    if (digits.empty() || digits.size() > 3 ||
        digits.find_first_not_of("0123456789") != std::string::npos) {
      throw std::invalid_argument("[machine] device must be cuda:N with a number N, is '" + name +
                                  "'");
    }
    index = std::stoll(digits);
  }
  if (index >= gpu_count()) {
    throw std::invalid_argument("[machine] device '" + name +
                                "' is not there: " + std::to_string(gpu_count()) +
                                " CUDA devices were found" + kWithoutCuda + "; use --device cpu");
  }
  return {at::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

void use_deterministic_kernels(at::Device device) {
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/!device.is_cuda());
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

bool multiplies_bfloat16_fast(at::Device device) {
  if (device.is_cuda()) return true;  // emulated below sm_80, native from there on
  static const auto capabilities = at::cpu::get_cpu_capabilities();
  const auto has = [&](const char* name) {
    const auto found = capabilities.find(name);
    return found != capabilities.end() && found->second.toBool();
  };
  return has("avx512_bf16") || has("amx_bf16");
}

at::ScalarType choose_dtype(const std::string& name, at::Device device) {
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  return multiplies_bfloat16_fast(device) ? at::kBFloat16 : at::kFloat;
}

std::string dtype_name(at::ScalarType type) {
  if (type == at::kFloat) return "float32";
  if (type == at::kBFloat16) return "bfloat16";
  throw std::logic_error(std::string("no run is in ") + toString(type));
}

void set_tf32(const std::string& value, at::Device device, at::ScalarType dtype) {
  const bool on = value == "on";
  if (on && !(device.is_cuda() && dtype == at::kFloat)) {
    throw std::invalid_argument("[machine] tf32 is of float32 on a GPU, and this is " +
                                dtype_name(dtype) + " on " + device.str() + "; leave out tf32");
  }
  at::globalContext().setAllowTF32CuBLAS(on);
}

int set_threads(int64_t threads) {
  const int64_t cores = std::max(1U, std::thread::hardware_concurrency());
  at::set_num_threads(static_cast<int>(threads > 0 ? threads : cores));
  return at::get_num_threads();
}

json describe_environment(at::Device device) {
  utsname system{};
  uname(&system);
  json environment = {
      {"host", system.nodename},
      {"system", std::string(system.sysname) + " " + system.release + " " + system.machine},
      {"cpu", cpu_model()},
      {"cpu_capability", at::get_cpu_capability()},
      {"cores", std::thread::hardware_concurrency()},
      {"memory_bytes", int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE)},
      {"device", device.str()},
      {"torch", TORCH_VERSION},
      {"compiler", "g++ " __VERSION__}};
  if (device.is_cuda()) {
    environment["gpus"] = gpu_count();
    environment["gpu"] = gpu_models();
  }
  return environment;
}

json describe_git() {
  const std::string git = "git -C '" + source_dir().string() + "' ";
  const std::string commit = first_line_of(git + "rev-parse HEAD 2>/dev/null");
  if (commit.empty()) return {{"commit", nullptr}, {"dirty", nullptr}};
  const std::string change =
      first_line_of(git + "status --porcelain --untracked-files=no 2>/dev/null");
  return {{"commit", commit}, {"dirty", !change.empty()}};
}

}  // namespace nanoflex
