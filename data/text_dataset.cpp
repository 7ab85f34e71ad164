#include "data/text_dataset.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>

#include "data/atomic_file.h"
#include "data/cache.h"
#include "data/corpus.h"
#include "data/encode.h"
#include "data/shakespeare.h"

namespace nanoflex::data {

namespace fs = std::filesystem;

namespace {

// Part of every key: to be raised when the same text comes to mean other documents or tokens.
constexpr const char* kFormat = "1";

bool is_default_text(const std::string& data) { return data.empty() || data == "shakespeare"; }

std::vector<fs::path> source_files(const DatasetOptions& options) {
  return is_default_text(options.data)
             ? shakespeare_files(fs::path(options.text_dir) / "shakespeare")
             : corpus_files(options.data);
}

std::vector<std::string> read_sources(const DatasetOptions& options,
                                      const std::vector<fs::path>& files) {
  std::vector<std::string> documents;
  for (const fs::path& file : files) {
    auto more = is_default_text(options.data) ? split_work(read_text(file)) : read_documents(file);
    std::move(more.begin(), more.end(), std::back_inserter(documents));
  }
  return documents;
}

std::string hash_documents(const std::vector<std::string>& documents) {
  std::string hashes;
  for (const std::string& document : documents) hashes += content_hash(document);
  return content_hash(hashes);
}

int64_t choose_bos(const DatasetOptions& options, const Tokenizer& tokenizer) {
  if (options.bos_id) return *options.bos_id;
  if (!tokenizer.bos_id()) {
    throw std::invalid_argument(
        "[data] the tokenizer " + tokenizer.path() +
        " defines no BOS token; name the id that begins a document with --bos-id");
  }
  return *tokenizer.bos_id();
}

struct Split {
  std::vector<std::string> train, validation;
};

Split split_documents(std::vector<std::string> documents) {
  Split split;
  for (std::string& document : documents) {
    (is_held_out(document) ? split.validation : split.train).push_back(std::move(document));
  }
  return split;
}

// Writes all but the last 5 % of the tokens of `documents` to `train`, the rest, as a document or
// more, to `validation`.
void split_tokens(const std::vector<std::vector<int32_t>>& documents, int64_t bos_id,
                  ShardWriter& train, ShardWriter& validation) {
  std::vector<int32_t> all;
  for (const auto& ids : documents) all.insert(all.end(), ids.begin(), ids.end());
  const size_t cut = all.size() - std::max<size_t>(all.size() / kHeldOutShare, 1);
  const auto bos = static_cast<int32_t>(bos_id);
  train.append({all.data(), cut});
  if (all[cut] != bos) validation.append({&bos, 1});
  validation.append({all.data() + cut, all.size() - cut});
}

void write_shards(const fs::path& folder, const DatasetOptions& options, const Tokenizer& tokenizer,
                  const Split& split) {
  const int64_t bos_id = choose_bos(options, tokenizer);
  const int64_t vocab_size = std::max(tokenizer.vocab_size(), bos_id + 1);
  ShardWriter train(folder / "train.bin", vocab_size);
  ShardWriter validation(folder / "validation.bin", vocab_size);
  const auto trained = encode_documents(tokenizer, bos_id, split.train, options.log);
  const auto held_out = encode_documents(tokenizer, bos_id, split.validation, options.log);
  if (trained.empty() || held_out.empty()) {
    split_tokens(trained.empty() ? held_out : trained, bos_id, train, validation);
  } else {
    for (const auto& ids : trained) train.append(ids);
    for (const auto& ids : held_out) validation.append(ids);
  }
  train.commit();
  validation.commit();
  if (options.log) {
    options.log("[data] " + std::to_string(split.train.size() + split.validation.size()) +
                " documents: " + std::to_string(train.size()) + " tokens to train on, " +
                std::to_string(validation.size()) + " held out");
  }
}

// `text`: what hash_documents() gave, under which the result is kept.
void prepare(const fs::path& folder, const DatasetOptions& options, int64_t trained_vocab_size,
             const std::vector<fs::path>& files, const std::string& text) {
  std::vector<std::string> read = read_sources(options, files);
  if (hash_documents(read) != text) {
    throw std::invalid_argument("[data] the text changed while it was read: start again");
  }
  const Split split = split_documents(std::move(read));
  std::string model_path = options.tokenizer;
  if (model_path.empty()) {
    if (options.log) {
      options.log("[data] training a tokenizer of " + std::to_string(trained_vocab_size) +
                  " tokens (once for this text)");
    }
    const auto& documents = split.train.empty() ? split.validation : split.train;
    model_path = folder / "tokenizer.model";
    write_atomically(model_path,
                     train_tokenizer({documents.begin(), documents.end()}, trained_vocab_size));
  }
  write_shards(folder, options, *Tokenizer::load(model_path, options.vocab_size), split);
}

Dataset open_prepared(const fs::path& folder, const DatasetOptions& options) {
  Dataset dataset;
  dataset.tokenizer = Tokenizer::load(
      options.tokenizer.empty() ? (folder / "tokenizer.model").string() : options.tokenizer,
      options.vocab_size);
  dataset.bos_id = choose_bos(options, *dataset.tokenizer);
  const int64_t vocab_size = std::max(dataset.tokenizer->vocab_size(), dataset.bos_id + 1);
  dataset.train = Tokens::open(folder / "train.bin", vocab_size);
  dataset.validation = Tokens::open(folder / "validation.bin", vocab_size);
  return dataset;
}

}  // namespace

std::vector<std::string> read_text_documents(const DatasetOptions& options) {
  return read_sources(options, source_files(options));
}

bool is_held_out(const std::string& document) {
  const auto hash = std::stoul(content_hash(document).substr(0, 8), nullptr, 16);
  return hash % kHeldOutShare == 0;
}

Dataset open_text(const DatasetOptions& options) {
  const auto files = source_files(options);
  const int64_t trained_vocab_size = std::min(options.tokenizer_vocab_size, options.vocab_size);
  const std::string purpose =
      std::string("documents ") + kFormat + (is_default_text(options.data) ? " scenes" : "");
  const std::string text = remembered(options.cache_dir, purpose, files,
                                      [&] { return hash_documents(read_sources(options, files)); });
  const std::string tokenizer = options.tokenizer.empty()
                                    ? "bpe " + std::to_string(trained_vocab_size)
                                    : content_hash(read_bytes(options.tokenizer));
  const std::string bos = options.bos_id ? std::to_string(*options.bos_id) : "default";
  const fs::path folder =
      fs::path(options.cache_dir) /
      content_hash(std::string(kFormat) + "\n" + text + "\n" + tokenizer + "\n" + bos);

  const auto make = [&](const fs::path& unfinished) {
    prepare(unfinished, options, trained_vocab_size, files, text);
  };
  make_once(folder, options.log, make);
  try {
    return open_prepared(folder, options);
  } catch (const std::invalid_argument& damage) {
    // The user's own file is at fault rather than the cache when it cannot be loaded again.
    if (!options.tokenizer.empty()) {
      choose_bos(options, *Tokenizer::load(options.tokenizer, options.vocab_size));
    }
    if (options.log) options.log(std::string(damage.what()) + "; preparing the data again");
    fs::remove_all(folder);
    make_once(folder, options.log, make);
    return open_prepared(folder, options);
  }
}

}  // namespace nanoflex::data
