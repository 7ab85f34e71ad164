#include "attention/cuda/nvrtc.h"

#include <dlfcn.h>
#include <link.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <regex>
#include <sstream>
#include <stdexcept>

namespace nanoflex::cuda {
namespace {

namespace fs = std::filesystem;

// nvrtc.h's declarations, so that building needs no CUDA headers.
using NvrtcProgram = void*;
using Result = int;

fs::path folder_of(void* library) {
  link_map* map = nullptr;
  if (library == nullptr || dlinfo(library, RTLD_DI_LINKMAP, &map) != 0) return {};
  return fs::absolute(map->l_name).parent_path();
}

// Where libnvrtc may be. The CUDA wheels lie beside LibTorch's: torch/lib and nvidia/cu13/lib.
std::vector<fs::path> wheel_folders() {
  std::vector<fs::path> folders;
  if (const char* folder = std::getenv("NANOFLEX_NVRTC")) folders.emplace_back(folder);
  const fs::path lib = folder_of(dlopen("libc10.so", RTLD_LAZY | RTLD_NOLOAD));
  if (!lib.empty()) folders.push_back(lib.parent_path().parent_path() / "nvidia/cu13/lib");
  return folders;
}

void* open_library(const std::vector<fs::path>& folders) {
  std::string tried;
  for (const fs::path& folder : folders) {
    const std::string file = (folder / "libnvrtc.so.13").string();
    if (void* library = dlopen(file.c_str(), RTLD_NOW)) return library;
    tried += file + ", ";
  }
  if (void* library = dlopen("libnvrtc.so.13", RTLD_NOW)) return library;
  throw std::runtime_error(
      "[cuda] NVRTC 13 compiles the GPU kernels and was not found; tried " + tried +
      "LD_LIBRARY_PATH; install the wheel nvidia-cuda-nvrtc, or name its folder in NANOFLEX_NVRTC");
}

/// "name(12): error: what" of a log that may hold warnings before it.
std::string first_error(const std::string& log) {
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    if (line.find("error") != std::string::npos) return line;
  }
  return log.substr(0, log.find('\n'));
}

int number_before(const std::string& log, const std::string& words) {
  std::smatch match;
  if (!std::regex_search(log, match, std::regex("(\\d+) " + words))) return 0;
  return std::stoi(match[1]);
}

}  // namespace

struct Nvrtc::Functions {
  const char* (*error_string)(Result);
  Result (*version)(int*, int*);
  Result (*create)(NvrtcProgram*, const char*, const char*, int, const char* const*,
                   const char* const*);
  Result (*destroy)(NvrtcProgram*);
  Result (*compile)(NvrtcProgram, int, const char* const*);
  Result (*log_size)(NvrtcProgram, size_t*);
  Result (*log)(NvrtcProgram, char*);
  Result (*cubin_size)(NvrtcProgram, size_t*);
  Result (*cubin)(NvrtcProgram, char*);
};

const Nvrtc& Nvrtc::get() {
  static const Nvrtc nvrtc;
  return nvrtc;
}

Nvrtc::Nvrtc() {
  const std::vector<fs::path> folders = wheel_folders();
  void* library = open_library(folders);
  static Functions functions;
  const auto load = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr) throw std::runtime_error(std::string("[cuda] NVRTC lacks ") + name);
  };
  load(functions.error_string, "nvrtcGetErrorString");
  load(functions.version, "nvrtcVersion");
  load(functions.create, "nvrtcCreateProgram");
  load(functions.destroy, "nvrtcDestroyProgram");
  load(functions.compile, "nvrtcCompileProgram");
  load(functions.log_size, "nvrtcGetProgramLogSize");
  load(functions.log, "nvrtcGetProgramLog");
  load(functions.cubin_size, "nvrtcGetCUBINSize");
  load(functions.cubin, "nvrtcGetCUBIN");
  functions_ = &functions;

  int major = 0, minor = 0;
  functions.version(&major, &minor);
  version_ = std::to_string(major) + "." + std::to_string(minor);
  // cuda_bf16.h and cuda_fp16.h come with the run-time wheel, which lies in the same folder.
  const fs::path own = folder_of(library);
  std::vector<fs::path> candidates = {own.parent_path() / "include"};
  for (const fs::path& folder : folders) candidates.push_back(folder.parent_path() / "include");
  if (const char* home = std::getenv("CUDA_HOME")) candidates.push_back(fs::path(home) / "include");
  for (const fs::path& folder : candidates) {
    if (include_folder_.empty() && fs::exists(folder / "cuda_bf16.h")) {
      include_folder_ = folder.string();
    }
  }
  if (include_folder_.empty()) {
    throw std::runtime_error("[cuda] cuda_bf16.h was not found beside NVRTC in " +
                             candidates[0].string() +
                             "; install the wheel nvidia-cuda-runtime, or set CUDA_HOME");
  }
}

std::vector<std::string> Nvrtc::options() const {
  return {"--std=c++20", "--ptxas-options=-v", "-default-device"};
}

std::string Nvrtc::identity() const {
  std::string text = "nvrtc " + version_;
  for (const std::string& option : options()) text += " " + option;
  return text;
}

Cubin Nvrtc::compile(const std::string& name, const std::string& text,
                     const std::vector<Source>& headers, const std::string& architecture) const {
  std::vector<const char*> header_texts, header_names;
  for (const Source& header : headers) {
    header_texts.push_back(header.text.c_str());
    header_names.push_back(header.name.c_str());
  }
  const auto check = [&](Result result, const char* call) {
    if (result == 0) return;
    throw std::runtime_error("[cuda] " + std::string(call) + " of " + name + " for " +
                             architecture + ": " + functions_->error_string(result));
  };
  NvrtcProgram raw = nullptr;
  check(functions_->create(&raw, text.c_str(), name.c_str(), static_cast<int>(headers.size()),
                           header_texts.data(), header_names.data()),
        "nvrtcCreateProgram");
  const auto destroy = [this](NvrtcProgram* program) { functions_->destroy(program); };
  const std::unique_ptr<NvrtcProgram, decltype(destroy)> program(&raw, destroy);

  std::vector<std::string> arguments = options();
  arguments.push_back("--gpu-architecture=" + architecture);
  arguments.push_back("-I" + include_folder_);
  std::vector<const char*> pointers;
  for (const std::string& argument : arguments) pointers.push_back(argument.c_str());
  const Result compiled =
      functions_->compile(raw, static_cast<int>(pointers.size()), pointers.data());

  Cubin cubin;
  size_t size = 0;
  check(functions_->log_size(raw, &size), "nvrtcGetProgramLogSize");
  cubin.log.resize(size);
  check(functions_->log(raw, cubin.log.data()), "nvrtcGetProgramLog");
  if (compiled != 0) {
    throw std::runtime_error("[cuda] " + name + " does not compile for " + architecture + ": " +
                             first_error(cubin.log));
  }
  check(functions_->cubin_size(raw, &size), "nvrtcGetCUBINSize");
  cubin.image.resize(size);
  check(functions_->cubin(raw, cubin.image.data()), "nvrtcGetCUBIN");
  // "Used 40 registers, ... 256 bytes smem", "8 bytes stack frame, 8 bytes spill stores, ..."
  std::smatch used;
  if (!std::regex_search(cubin.log, used, std::regex("Used (\\d+) registers"))) {
    throw std::runtime_error("[cuda] NVRTC " + version_ + " does not report the registers of " +
                             name);
  }
  cubin.registers = std::stoi(used[1]);
  cubin.stack_bytes = number_before(cubin.log, "bytes stack frame");
  cubin.spill_bytes = number_before(cubin.log, "bytes spill stores") +
                      number_before(cubin.log, "bytes spill loads");
  cubin.shared_bytes = number_before(cubin.log, "bytes smem");
  return cubin;
}

}  // namespace nanoflex::cuda
