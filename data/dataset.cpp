#include "data/dataset.h"

#include <stdexcept>

#include "data/text_dataset.h"

namespace nanoflex::data {

namespace {

void require_bos_in_vocabulary(int64_t bos_id, int64_t vocab_size) {
  if (bos_id >= 0 && bos_id < vocab_size) return;
  throw std::invalid_argument("[data] bos_id must be in [0, vocab_size), is " +
                              std::to_string(bos_id) + " with vocab_size " +
                              std::to_string(vocab_size));
}

void hold_out_tail(Dataset& dataset, const std::string& path) {
  const auto all = dataset.train;
  const int64_t size = all->size();
  const int64_t cut = size - size / kHeldOutShare;
  if (cut == size) {
    throw std::invalid_argument("[data] " + path + " holds " + std::to_string(size) +
                                " tokens, too few to hold out 5 % of them; name validation shards "
                                "with --val-data");
  }
  dataset.train = all->slice(0, cut);
  dataset.validation = all->slice(cut, size);
}

Dataset open_shards(const DatasetOptions& options) {
  Dataset dataset;
  dataset.train = Tokens::open(options.data, options.vocab_size);
  dataset.bos_id = options.bos_id.value_or(dataset.train->at(0));
  require_bos_in_vocabulary(dataset.bos_id, options.vocab_size);
  if (!options.tokenizer.empty())
    dataset.tokenizer = Tokenizer::load(options.tokenizer, options.vocab_size);
  if (options.val_data.empty()) {
    hold_out_tail(dataset, options.data);
  } else {
    dataset.validation = Tokens::open(options.val_data, options.vocab_size);
  }
  return dataset;
}

}  // namespace

Dataset open_dataset(const DatasetOptions& options) {
  if (options.bos_id) require_bos_in_vocabulary(*options.bos_id, options.vocab_size);
  if (names_shards(options.data)) return open_shards(options);
  if (!options.val_data.empty()) {
    throw std::invalid_argument(
        "[data] val_data is for .bin shards, and data is text, which holds out 5 % of its "
        "documents; remove val_data, is '" +
        options.val_data + "'");
  }
  return open_text(options);
}

}  // namespace nanoflex::data
