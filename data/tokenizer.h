// SentencePiece: text <-> tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace nanoflex::data {

// A trained SentencePiece model. Const and safe to use from many threads.
class Tokenizer {
 public:
  // Reads a .model file. Throws std::invalid_argument when it is missing, not a SentencePiece
  // model, or has more tokens than the model's vocab_size.
  static std::shared_ptr<const Tokenizer> load(
      const std::string& path, int64_t vocab_size = std::numeric_limits<int64_t>::max());
  ~Tokenizer();

  // The tokens of UTF-8 text, without BOS. With a model from train_tokenizer, decode(encode(text))
  // is text, byte for byte; other models may normalise. Throws std::invalid_argument, as decode()
  // does, where the model itself fails.
  std::vector<int32_t> encode(std::string_view text) const;
  // Throws std::invalid_argument for an id outside the vocabulary.
  std::string decode(const std::vector<int32_t>& ids) const;

  // Cuts text where encoding the parts one by one gives the same tokens as encoding the whole, into
  // parts of about `bytes`; a single part where the model allows no cut.
  std::vector<std::string_view> parts(std::string_view text, size_t bytes) const;

  std::optional<int64_t> bos_id() const;
  int64_t vocab_size() const;
  // [vocab_size] int64: the UTF-8 bytes that each token stands for; 0 for BOS and other control
  // tokens.
  at::Tensor token_bytes() const;
  const std::string& path() const { return path_; }

 private:
  Tokenizer(std::string path, std::unique_ptr<sentencepiece::SentencePieceProcessor> processor);
  bool newline_stands_alone() const;
  std::string broken(const std::string& what, const std::string& problem) const;
  void encode_plain(std::string_view text, std::vector<int32_t>& ids) const;

  std::string path_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  std::vector<int32_t>
      space_mark_bytes_;  // tokens of a literal U+2581; empty if the model lacks them
  bool cuts_at_newlines_ = false;
};

// Trains a BPE model with byte fallback and returns its file's content. The vocabulary is
// `vocab_size`, or what little text supports. White space is kept, a newline is a token, BOS is
// defined. The same documents give the same model. Throws std::invalid_argument for a vocab_size
// under 300 or text without a letter.
std::string train_tokenizer(const std::vector<std::string_view>& documents, int64_t vocab_size);

}  // namespace nanoflex::data
