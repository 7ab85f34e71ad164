#include "data/loader.h"

#include <ATen/Functions.h>
#include <ATen/record_function.h>

namespace nanoflex::data {

Loader::Loader(std::shared_ptr<const Tokens> tokens, LoaderOptions options)
    : tokens_(std::move(tokens)),
      options_(std::move(options)),
      packing_(make_packing(tokens_, options_)),
      position_(packing_->position()) {}

Loader::Item Loader::read() {
  Batch batch;
  batch.tokens = at::empty({options_.batch_size, options_.sequence_len}, at::kLong);
  batch.targets = at::empty_like(batch.tokens);
  packing_->next(batch.tokens.mutable_data_ptr<int64_t>(),
                 batch.targets.mutable_data_ptr<int64_t>());
  batch.document_starts = batch.tokens.eq(options_.bos_id);
  return {std::move(batch), packing_->position()};
}

Batch Loader::next() {
  // The thread starts with the first batch, so that a restored loader never reads from the
  // beginning.
  if (options_.prefetch && !prefetch_) {
    prefetch_ = std::make_unique<Prefetch<Item>>([this] {
      const at::DisableRecordFunctionGuard not_of_a_step;  // whose operations a profile counts
      return read();
    });
  }
  Item item = prefetch_ ? prefetch_->next() : read();
  position_ = std::move(item.position_after);
  return std::move(item.batch);
}

void Loader::restore(const nlohmann::json& position) {
  auto packing = make_packing(tokens_, options_);
  packing->restore(position);
  prefetch_.reset();
  packing_ = std::move(packing);
  position_ = packing_->position();
}

}  // namespace nanoflex::data
