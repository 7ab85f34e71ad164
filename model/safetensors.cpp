#include "model/safetensors.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <system_error>

namespace nanoflex {
namespace {

using nlohmann::json;
static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference implementation
constexpr int64_t kMaxElements = int64_t{1} << 48;

struct TypeName {
  const char* name;
  at::ScalarType type;
};
constexpr TypeName kTypes[] = {{"F64", at::kDouble}, {"F32", at::kFloat}, {"BF16", at::kBFloat16},
                               {"F16", at::kHalf},   {"I64", at::kLong},  {"I32", at::kInt},
                               {"U8", at::kByte},    {"BOOL", at::kBool}};

at::ScalarType type_of(const std::string& name) {
  for (const TypeName& entry : kTypes) {
    if (name == entry.name) return entry.type;
  }
  throw std::invalid_argument("unknown dtype '" + name + "'");
}

const char* name_of(at::ScalarType type) {
  for (const TypeName& entry : kTypes) {
    if (type == entry.type) return entry.name;
  }
  throw std::logic_error(std::string("[safetensors] cannot write dtype ") + at::toString(type));
}

// The bytes of a tensor of this shape; refuses sizes that overflow.
uint64_t checked_bytes(const std::vector<int64_t>& shape, at::ScalarType type) {
  int64_t elements = 1;
  for (const int64_t size : shape) {
    if (size < 0 || (size > 0 && elements > kMaxElements / size)) {
      throw std::invalid_argument("impossible shape");
    }
    elements *= size;
  }
  return static_cast<uint64_t>(elements) * at::elementSize(type);
}

json read_header(std::ifstream& in, uint64_t file_bytes) {
  uint64_t header_bytes = 0;
  in.read(reinterpret_cast<char*>(&header_bytes), sizeof header_bytes);
  if (!in || header_bytes > kMaxHeaderBytes || header_bytes > file_bytes - sizeof header_bytes) {
    throw std::invalid_argument("its header does not fit in its " + std::to_string(file_bytes) +
                                " bytes; it is truncated or no safetensors file");
  }
  std::string text(header_bytes, '\0');
  in.read(text.data(), static_cast<std::streamsize>(header_bytes));
  const json header = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!in || !header.is_object()) throw std::invalid_argument("its header is not a JSON object");
  return header;
}

at::Tensor read_tensor(std::ifstream& in, const json& entry, uint64_t data_begin,
                       uint64_t data_bytes) {
  const at::ScalarType type = type_of(entry.at("dtype").get<std::string>());
  const auto shape = entry.at("shape").get<std::vector<int64_t>>();
  const auto offsets = entry.at("data_offsets").get<std::vector<uint64_t>>();
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data_bytes ||
      offsets[1] - offsets[0] != checked_bytes(shape, type)) {
    throw std::invalid_argument("its data_offsets do not fit its shape or the file");
  }
  at::Tensor tensor = at::empty(shape, type);
  in.seekg(static_cast<std::streamoff>(data_begin + offsets[0]));
  in.read(static_cast<char*>(tensor.data_ptr()),
          static_cast<std::streamsize>(offsets[1] - offsets[0]));
  if (!in) throw std::invalid_argument("its data is truncated");
  return tensor;
}

std::string padded_header(const std::map<std::string, at::Tensor>& tensors) {
  json header = json::object();
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    const uint64_t end = offset + tensor.nbytes();
    header[name] = {{"dtype", name_of(tensor.scalar_type())},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data that follows is aligned to 8 bytes
  return text;
}

// Writes and sums up, a piece that stays in the cache at a time.
void append(std::ofstream& out, FileSum& sum, const void* data, size_t bytes) {
  constexpr size_t kPiece = 1 << 18;
  for (const char* at = static_cast<const char*>(data); bytes > 0 && out;) {
    const size_t count = std::min(bytes, kPiece);
    sum.crc32c = crc32c(sum.crc32c, at, count);
    sum.bytes += count;
    out.write(at, static_cast<std::streamsize>(count));
    at += count;
    bytes -= count;
  }
}

}  // namespace

std::map<std::string, at::Tensor> read_safetensors(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::error_code error;
  const uint64_t file_bytes = std::filesystem::file_size(file, error);
  if (!in || error) {
    throw std::invalid_argument("[safetensors] cannot read " + file.string() +
                                "; does it exist and may you read it?");
  }
  std::string name = "header";
  try {
    if (file_bytes < sizeof(uint64_t)) throw std::invalid_argument("it is shorter than 8 bytes");
    const json header = read_header(in, file_bytes);
    const auto data_begin = static_cast<uint64_t>(in.tellg());
    std::map<std::string, at::Tensor> tensors;
    for (const auto& [key, entry] : header.items()) {
      name = key;
      if (key == "__metadata__") continue;
      tensors[key] = read_tensor(in, entry, data_begin, file_bytes - data_begin);
    }
    return tensors;
  } catch (const std::invalid_argument& problem) {
    throw std::invalid_argument("[safetensors] " + file.string() + " (" + name +
                                "): " + problem.what());
  } catch (const json::exception& problem) {
    throw std::invalid_argument("[safetensors] " + file.string() + " (" + name +
                                "): malformed entry: " + problem.what());
  }
}

FileSum write_safetensors(const std::filesystem::path& file,
                          const std::map<std::string, at::Tensor>& tensors) {
  const std::filesystem::path temporary = file.string() + ".tmp";
  const std::string header = padded_header(tensors);
  const uint64_t header_bytes = header.size();
  std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
  FileSum sum;
  append(out, sum, &header_bytes, sizeof header_bytes);
  append(out, sum, header.data(), header.size());
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor bytes = tensor.detach().to(at::kCPU).contiguous();
    append(out, sum, bytes.data_ptr(), bytes.nbytes());
  }
  out.close();
  try {
    if (!out) throw std::system_error(errno, std::generic_category());
    flush_to_disk(temporary);
    std::filesystem::rename(temporary, file);
  } catch (const std::system_error& problem) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw std::invalid_argument("[safetensors] cannot write " + file.string() + ": " +
                                problem.code().message());
  }
  return sum;
}

}  // namespace nanoflex
