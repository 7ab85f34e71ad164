// From what the user names as data to token sequences for training and validation.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "data/shard.h"
#include "data/tokenizer.h"

namespace nanoflex::data {

struct DatasetOptions {
  // A text file, a .jsonl file, a folder of them, or .bin shards (file, folder, glob). Empty or
  // "shakespeare": the default text.
  std::string data{};
  std::string val_data{};   // validation shards, for data that is shards
  std::string tokenizer{};  // a SentencePiece .model; empty: one is trained on text
  int64_t tokenizer_vocab_size = 8192;
  int64_t vocab_size = 50304;       // the model's: every token must be below it
  std::optional<int64_t> bos_id{};  // default: the tokenizer's, or the shards' first token
  std::string text_dir{};           // holds shakespeare/
  std::string cache_dir{};
  std::function<void(const std::string&)> log{};  // may be null
};

constexpr int64_t kHeldOutShare = 20;  // one document, or token, in so many

struct Dataset {
  std::shared_ptr<const Tokens> train, validation;
  std::shared_ptr<const Tokenizer> tokenizer;  // null for shards without a tokenizer
  int64_t bos_id = 0;
};

// Text is tokenized once and found again in cache_dir by its content. Every document starts with
// BOS. Held out for validation: 5 % of the documents, chosen by their content's hash, or, where
// that leaves one side empty, the last 5 % of the tokens; of shards without val_data the last 5 %
// of the tokens. Throws std::invalid_argument for data that cannot be used, saying why.
Dataset open_dataset(const DatasetOptions& options);

}  // namespace nanoflex::data
