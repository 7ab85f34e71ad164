#pragma once

#include <ATen/Functions.h>

#include <filesystem>
#include <map>
#include <string>

#include "model/durable.h"

namespace nanoflex {

/// Reads a safetensors file: an 8-byte little-endian header length, a JSON header of
/// {name: {dtype, shape, data_offsets}}, then the bytes, of which no two tensors share any. Nothing
/// in the file is trusted.
/// Throws std::invalid_argument naming the file and what is wrong with it.
std::map<std::string, at::Tensor> read_safetensors(const std::filesystem::path& file);

/// Writes tensors (F64, F32, BF16, F16, I64, I32, U8, BOOL) under a temporary name beside `file`,
/// flushes them to disk and renames: a reader sees the old file or the new one, whole.
/// Returns what sum_file() would. Throws std::invalid_argument, in the system's words, when the
/// disk refuses.
FileSum write_safetensors(const std::filesystem::path& file,
                          const std::map<std::string, at::Tensor>& tensors);

}  // namespace nanoflex
