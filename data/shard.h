// Token shards on disk: llm.c's .bin files.
//
// 256 int32 of header (magic, version, token count, zeros), then the tokens: magic 20240520,
// version 1 with uint16; magic 20240801, version 7 with uint32. Source: github.com/karpathy/llm.c,
// dev/data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/atomic_file.h"

namespace nanoflex::data {

// Whether `path` names shards: a file or glob that ends in .bin, or a folder that holds such files.
bool names_shards(const std::string& path);

// A read-only sequence of tokens: shards, mapped into memory, end to end. Cheap to slice; safe to
// read from many threads.
class Tokens {
 public:
  // path: a .bin file, a folder of them or a glob (sorted by name). Throws std::invalid_argument,
  // naming the file, for what is not a whole shard, and for a token that is not below vocab_size.
  static std::shared_ptr<const Tokens> open(const std::string& path, int64_t vocab_size);

  int64_t size() const { return size_; }
  // REQUIRES: 0 <= index < size()
  int64_t at(int64_t index) const;
  // out[i] = at(begin + i) for i < count. REQUIRES: 0 <= begin, begin + count <= size()
  void copy(int64_t begin, int64_t count, int64_t* out) const;
  // The first position >= begin that holds `token`, or size().
  int64_t find(int64_t token, int64_t begin) const;
  // The tokens [begin, end), sharing the same maps.
  std::shared_ptr<const Tokens> slice(int64_t begin, int64_t end) const;

 private:
  struct Run {
    std::shared_ptr<const void> owner;
    std::span<const uint16_t> narrow;  // one of the two is in use
    std::span<const uint32_t> wide;
    int64_t begin = 0;  // position of its first token in the sequence

    int64_t size() const { return static_cast<int64_t>(narrow.size() + wide.size()); }
  };
  static Run open_shard(const std::filesystem::path& file, int64_t vocab_size);
  void append(Run run);
  template <typename Visit>
  void visit(int64_t begin, int64_t end, const Visit& visit) const;

  std::vector<Run> runs_;
  int64_t size_ = 0;
};

// Writes one shard: uint16 where the vocabulary allows, else uint32.
class ShardWriter {
 public:
  ShardWriter(const std::filesystem::path& path, int64_t vocab_size);
  void append(std::span<const int32_t> tokens);
  // Completes the header and gives the file its name. Without it no file appears.
  void commit();
  int64_t size() const { return count_; }

 private:
  AtomicFile file_;
  bool wide_;
  int64_t count_ = 0;
};

}  // namespace nanoflex::data
