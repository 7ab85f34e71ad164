#include "model/safetensors.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <system_error>
#include <vector>

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

// A list of whole numbers from 0 to kMaxElements.
std::vector<int64_t> numbers(const json& entry, const std::string& key) {
  std::vector<int64_t> result;
  for (const json& number : entry.at(key).get_ref<const json::array_t&>()) {
    if (!number.is_number_unsigned() || number.get<uint64_t>() > uint64_t{kMaxElements}) {
      throw std::invalid_argument("impossible " + key + ", it has " +
                                  (number.is_number() ? number.dump() : number.type_name()));
    }
    result.push_back(number.get<int64_t>());
  }
  return result;
}

// The bytes of a tensor of this shape; refuses sizes that overflow, as would strides, in which a
// size of 0 counts as 1.
uint64_t checked_bytes(const std::vector<int64_t>& shape, at::ScalarType type) {
  int64_t elements = 1, extent = 1;
  for (const int64_t size : shape) {
    const int64_t step = std::max<int64_t>(1, size);
    if (extent > kMaxElements / step) {
      throw std::invalid_argument("impossible shape, of more than 2^48 elements");
    }
    extent *= step;
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

// A tensor's place in the file, [begin, end) of the data.
struct Entry {
  std::string name;
  at::ScalarType type;
  std::vector<int64_t> shape;
  uint64_t begin, end;
};

Entry entry_of(const std::string& name, const json& entry, uint64_t data_bytes) {
  const at::ScalarType type = type_of(entry.at("dtype").get<std::string>());
  const std::vector<int64_t> shape = numbers(entry, "shape");
  const std::vector<int64_t> offsets = numbers(entry, "data_offsets");
  const uint64_t bytes = checked_bytes(shape, type);
  if (offsets.size() == 2 && offsets[0] <= offsets[1]) {
    const auto begin = static_cast<uint64_t>(offsets[0]), end = static_cast<uint64_t>(offsets[1]);
    if (end <= data_bytes && end - begin == bytes) return {name, type, shape, begin, end};
  }
  throw std::invalid_argument("its data_offsets do not fit its shape or the file");
}

// Together they are no larger than the file. `name` is that of the entry that is looked at.
void check_disjoint(std::vector<Entry>& entries, std::string& name) {
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.begin < b.begin; });
  const Entry* before = nullptr;
  for (const Entry& entry : entries) {
    if (entry.begin == entry.end) continue;
    name = entry.name;
    if (before && entry.begin < before->end) {
      throw std::invalid_argument("its data overlaps that of '" + before->name + "'");
    }
    before = &entry;
  }
}

at::Tensor read_tensor(std::ifstream& in, const Entry& entry, uint64_t data_begin) {
  at::Tensor tensor = at::empty(entry.shape, entry.type);
  in.seekg(static_cast<std::streamoff>(data_begin + entry.begin));
  in.read(static_cast<char*>(tensor.data_ptr()),
          static_cast<std::streamsize>(entry.end - entry.begin));
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

// To be called right after what may have failed, while errno is of that.
void check_written(const std::ofstream& out) {
  if (!out) throw std::system_error(errno, std::generic_category());
}

// Writes and sums up, a piece that stays in the cache at a time.
void append(std::ofstream& out, FileSum& sum, const void* data, size_t bytes) {
  constexpr size_t kPiece = 1 << 18;
  for (const char* at = static_cast<const char*>(data); bytes > 0;) {
    const size_t count = std::min(bytes, kPiece);
    sum.crc32c = crc32c(sum.crc32c, at, count);
    sum.bytes += count;
    out.write(at, static_cast<std::streamsize>(count));
    check_written(out);
    at += count;
    bytes -= count;
  }
}

FileSum write_all(const std::filesystem::path& file, const std::string& header,
                  const std::map<std::string, at::Tensor>& tensors) {
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  check_written(out);
  FileSum sum;
  const uint64_t header_bytes = header.size();
  append(out, sum, &header_bytes, sizeof header_bytes);
  append(out, sum, header.data(), header.size());
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor bytes = tensor.detach().to(at::kCPU).contiguous();
    append(out, sum, bytes.data_ptr(), bytes.nbytes());
  }
  out.close();
  check_written(out);
  flush_to_disk(file);
  return sum;
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
    std::vector<Entry> entries;
    for (const auto& [key, entry] : header.items()) {
      name = key;
      if (key == "__metadata__") continue;
      entries.push_back(entry_of(key, entry, file_bytes - data_begin));
    }
    check_disjoint(entries, name);
    std::map<std::string, at::Tensor> tensors;
    for (const Entry& entry : entries) {
      name = entry.name;
      tensors[name] = read_tensor(in, entry, data_begin);
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
  try {
    const FileSum sum = write_all(temporary, header, tensors);
    std::filesystem::rename(temporary, file);
    return sum;
  } catch (const std::system_error& problem) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw std::invalid_argument("[safetensors] cannot write " + file.string() + ": " +
                                problem.code().message());
  }
}

}  // namespace nanoflex
