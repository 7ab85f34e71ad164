#include "attention/cuda/cubin_cache.h"

#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>
#include <system_error>

namespace nanoflex::cuda {
namespace {

namespace fs = std::filesystem;

constexpr char kMagic[] = "nanoflex cubin 1\n";

// Two FNV-1a hashes of different starts: 128 bits, so that no two kernels meet.
std::string hash_of(const std::string& text) {
  std::ostringstream name;
  name << std::hex;
  for (uint64_t hash : {0xcbf29ce484222325ULL, 0x84222325cbf29ce4ULL}) {
    for (const char letter : text) {
      hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3ULL;
    }
    name << hash;
  }
  return name.str();
}

// A file is the magic line, the image's hash in a line, and the image.
std::optional<std::string> read_image(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream content;
  content << in.rdbuf();
  const std::string text = content.str();
  const size_t header = sizeof(kMagic) - 1, line_end = text.find('\n', header);
  if (text.compare(0, header, kMagic) != 0 || line_end == std::string::npos) return {};
  std::string image = text.substr(line_end + 1);
  if (image.empty() || text.substr(header, line_end - header) != hash_of(image)) return {};
  return image;
}

void write_image(const fs::path& file, const std::string& image) {
  std::error_code ignored;
  fs::create_directories(file.parent_path(), ignored);
  fs::path temporary = file;
  temporary += "." + std::to_string(getpid()) + ".part";
  {
    std::ofstream out(temporary, std::ios::binary);
    out << kMagic << hash_of(image) << '\n' << image;
    if (!out.flush()) {
      fs::remove(temporary, ignored);
      return;
    }
  }
  fs::rename(temporary, file, ignored);
}

}  // namespace

fs::path CubinCache::default_folder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value != nullptr ? value : "");
  };
  if (const std::string folder = variable("NANOFLEX_CACHE"); !folder.empty()) return folder;
  if (const std::string folder = variable("XDG_CACHE_HOME"); !folder.empty()) {
    return fs::path(folder) / "nanoflex";
  }
  return fs::path(variable("HOME")) / ".cache" / "nanoflex";
}

fs::path CubinCache::file_of(const std::string& text, const std::vector<Source>& headers,
                             const std::string& architecture) const {
  std::string all = Nvrtc::get().identity() + '\0' + architecture + '\0' + text;
  for (const Source& header : headers) all += '\0' + header.name + '\0' + header.text;
  return folder_ / (hash_of(all) + "." + architecture + ".cubin");
}

CubinCache::Found CubinCache::get(const std::string& name, const std::string& text,
                                  const std::vector<Source>& headers,
                                  const std::string& architecture) const {
  const fs::path file = file_of(text, headers, architecture);
  if (std::optional<std::string> image = read_image(file)) return {std::move(*image), true};
  std::string image = Nvrtc::get().compile(name, text, headers, architecture).image;
  write_image(file, image);
  return {std::move(image), false};
}

}  // namespace nanoflex::cuda
