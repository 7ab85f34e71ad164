#pragma once

#include <ATen/Functions.h>

#include <nlohmann/json.hpp>
#include <string>

namespace nanoflex {

/// "auto": the first GPU, else the CPU. Throws std::invalid_argument for a device that is not
/// there.
at::Device choose_device(const std::string& name);

/// From here on LibTorch's kernels give the same bits each time; on a GPU those that cannot are
/// refused, on a CPU they warn.
void use_deterministic_kernels(at::Device device);

/// Whether bf16 matrix products run natively: CUDA from sm_80, x86 with AVX-512-BF16 or AMX.
bool multiplies_bfloat16_fast(at::Device device);

/// "auto": bfloat16 where the device multiplies it fast, else float32.
at::ScalarType choose_dtype(const std::string& name, at::Device device);
std::string dtype_name(at::ScalarType type);

/// "on": from here on products of float32 read tf32's 10 bits of mantissa, those of the attention
/// kernels too. Throws std::invalid_argument where there are none on a GPU.
void set_tf32(const std::string& value, at::Device device, at::ScalarType dtype);

/// Sets LibTorch's thread count (0: one a core) and returns it.
int set_threads(int64_t threads);

/// What the run ran on: host, CPU model and features, cores, memory, GPU, library versions.
nlohmann::json describe_environment(at::Device device);

/// The source's commit and whether the tree had changes; null values outside a git checkout.
nlohmann::json describe_git();

}  // namespace nanoflex
