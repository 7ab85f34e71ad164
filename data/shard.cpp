#include "data/shard.h"

#include <fcntl.h>
#include <glob.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace nanoflex::data {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kHeaderInts = 256;
constexpr int64_t kHeaderBytes = kHeaderInts * sizeof(int32_t);

struct Format {
  int32_t magic, version;
  int64_t token_bytes;
};
constexpr Format kNarrow{20240520, 1, 2};
constexpr Format kWide{20240801, 7, 4};

[[noreturn]] void refuse(const fs::path& file, const std::string& why) {
  throw std::invalid_argument("[data] " + file.string() + ": " + why);
}

std::shared_ptr<const std::byte> map_file(const fs::path& file, int64_t size) {
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) refuse(file, std::string("cannot be read: ") + std::strerror(errno));
  void* start = ::mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_SHARED, descriptor, 0);
  const int error = errno;
  ::close(descriptor);
  if (start == MAP_FAILED) refuse(file, std::string("cannot be mapped: ") + std::strerror(error));
  return {static_cast<const std::byte*>(start),
          [size](const std::byte* p) { ::munmap(const_cast<std::byte*>(p), size); }};
}

Format checked_format(const fs::path& file, const std::array<int32_t, 3>& header, int64_t size) {
  const auto [magic, version, count] = header;
  if (magic != kNarrow.magic && magic != kWide.magic) {
    refuse(file, "not a token shard: its magic number is " + std::to_string(magic) +
                     ", must be 20240520 (uint16) or 20240801 (uint32)");
  }
  const Format format = magic == kNarrow.magic ? kNarrow : kWide;
  if (version != format.version) {
    refuse(file, "shard version " + std::to_string(version) + " is not supported, must be " +
                     std::to_string(format.version));
  }
  const int64_t expected = kHeaderBytes + count * format.token_bytes;
  if (count < 0 || expected != size) {
    refuse(file, "the header promises " + std::to_string(count) + " tokens (" +
                     std::to_string(expected) + " bytes), but the file has " +
                     std::to_string(size) + " bytes; it is truncated or damaged");
  }
  if (count == 0) refuse(file, "the shard holds no tokens");
  return format;
}

template <typename Token>
void check_vocabulary(const fs::path& file, std::span<const Token> tokens, int64_t vocab_size) {
  if (std::numeric_limits<Token>::max() < vocab_size) return;
  Token largest = 0;
  for (const Token token : tokens) largest = std::max(largest, token);
  if (largest < vocab_size) return;
  const auto found =
      std::find_if(tokens.begin(), tokens.end(), [&](Token token) { return token >= vocab_size; });
  refuse(file, "token " + std::to_string(*found) + " at position " +
                   std::to_string(found - tokens.begin()) + " is not below vocab_size " +
                   std::to_string(vocab_size) + "; raise vocab_size to at least " +
                   std::to_string(int64_t{largest} + 1));
}

std::vector<fs::path> shard_files(const std::string& path) {
  std::vector<fs::path> files;
  std::error_code error;
  if (fs::is_directory(path, error)) {
    for (const auto& entry : fs::directory_iterator(path, error)) {
      if (entry.path().extension() == ".bin") files.push_back(entry.path());
    }
  } else if (fs::exists(path, error)) {
    files.push_back(path);
  } else {
    glob_t found{};
    ::glob(path.c_str(), 0, nullptr, &found);
    files.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
    ::globfree(&found);
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

bool names_shards(const std::string& path) {
  std::error_code error;
  return path.ends_with(".bin") || (fs::is_directory(path, error) && !shard_files(path).empty());
}

Tokens::Run Tokens::open_shard(const fs::path& file, int64_t vocab_size) {
  std::error_code error;
  const auto size = static_cast<int64_t>(fs::file_size(file, error));
  if (error) refuse(file, "cannot be read: " + error.message());
  if (size < kHeaderBytes) {
    refuse(file, "not a token shard: " + std::to_string(size) +
                     " bytes is less than its header of " + std::to_string(kHeaderBytes));
  }
  const auto map = map_file(file, size);
  std::array<int32_t, 3> header;
  std::memcpy(header.data(), map.get(), sizeof(header));
  const Format format = checked_format(file, header, size);
  const auto count = static_cast<size_t>(header[2]);
  Run run{.owner = map, .narrow = {}, .wide = {}};
  if (format.token_bytes == 2) {
    run.narrow = {reinterpret_cast<const uint16_t*>(map.get() + kHeaderBytes), count};
    check_vocabulary(file, run.narrow, vocab_size);
  } else {
    run.wide = {reinterpret_cast<const uint32_t*>(map.get() + kHeaderBytes), count};
    check_vocabulary(file, run.wide, vocab_size);
  }
  return run;
}

std::shared_ptr<const Tokens> Tokens::open(const std::string& path, int64_t vocab_size) {
  const auto files = shard_files(path);
  if (files.empty())
    throw std::invalid_argument("[data] no .bin shards at " + path +
                                "; name a file, a folder of them or a glob");
  auto tokens = std::make_shared<Tokens>();
  for (const fs::path& file : files) tokens->append(open_shard(file, vocab_size));
  return tokens;
}

void Tokens::append(Run run) {
  run.begin = size_;
  size_ += run.size();
  runs_.push_back(std::move(run));
}

template <typename Visit>
void Tokens::visit(int64_t begin, int64_t end, const Visit& visit) const {
  auto run = std::upper_bound(runs_.begin(), runs_.end(), begin,
                              [](int64_t position, const Run& r) { return position < r.begin; });
  for (; begin < end; ++run) {
    const Run& current = *(run - 1);
    const int64_t offset = begin - current.begin;
    const int64_t count = std::min(end - begin, current.size() - offset);
    const bool more = current.wide.empty() ? visit(current.narrow.subspan(offset, count), begin)
                                           : visit(current.wide.subspan(offset, count), begin);
    if (!more) return;
    begin += count;
  }
}

int64_t Tokens::at(int64_t index) const {
  int64_t token = 0;
  copy(index, 1, &token);
  return token;
}

void Tokens::copy(int64_t begin, int64_t count, int64_t* out) const {
  if (begin < 0 || count < 0 || begin + count > size_) {
    throw std::out_of_range("[data] tokens " + std::to_string(begin) + " to " +
                            std::to_string(begin + count) + " of " + std::to_string(size_));
  }
  visit(begin, begin + count, [&](auto tokens, int64_t position) {
    std::copy(tokens.begin(), tokens.end(), out + (position - begin));
    return true;
  });
}

int64_t Tokens::find(int64_t token, int64_t begin) const {
  int64_t found = size_;
  visit(begin, size_, [&](auto tokens, int64_t position) {
    const auto at = std::find(tokens.begin(), tokens.end(), token);
    if (at == tokens.end()) return true;
    found = position + (at - tokens.begin());
    return false;
  });
  return found;
}

std::shared_ptr<const Tokens> Tokens::slice(int64_t begin, int64_t end) const {
  auto slice = std::make_shared<Tokens>();
  for (const Run& run : runs_) {
    const int64_t first = std::clamp<int64_t>(begin - run.begin, 0, run.size());
    const int64_t last = std::clamp<int64_t>(end - run.begin, first, run.size());
    if (first == last) continue;
    Run part = run;
    if (run.wide.empty()) {
      part.narrow = run.narrow.subspan(first, last - first);
    } else {
      part.wide = run.wide.subspan(first, last - first);
    }
    slice->append(std::move(part));
  }
  return slice;
}

ShardWriter::ShardWriter(const fs::path& path, int64_t vocab_size)
    : file_(path), wide_(vocab_size > std::numeric_limits<uint16_t>::max() + 1) {
  file_.append(std::string(kHeaderBytes, '\0'));
}

void ShardWriter::append(std::span<const int32_t> tokens) {
  count_ += static_cast<int64_t>(tokens.size());
  if (count_ > std::numeric_limits<int32_t>::max()) {
    throw std::invalid_argument(
        "[data] the text has more than 2147483647 tokens, the most a shard holds; give less text "
        "at "
        "once, or .bin shards");
  }
  if (wide_) {
    file_.append({reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes()});
    return;
  }
  const std::vector<uint16_t> narrow(tokens.begin(), tokens.end());
  file_.append({reinterpret_cast<const char*>(narrow.data()), narrow.size() * sizeof(uint16_t)});
}

void ShardWriter::commit() {
  const Format format = wide_ ? kWide : kNarrow;
  const std::array<int32_t, 3> header{format.magic, format.version, static_cast<int32_t>(count_)};
  file_.rewrite(0, {reinterpret_cast<const char*>(header.data()), sizeof(header)});
  file_.commit();
}

}  // namespace nanoflex::data
