#include "data/stream_packing.h"

#include <algorithm>

#include "data/position.h"

namespace nanoflex::data {

StreamPacking::StreamPacking(std::shared_ptr<const Tokens> tokens, const LoaderOptions& options)
    : tokens_(std::move(tokens)), window_(options.batch_size * options.sequence_len + 1) {}

void StreamPacking::next(int64_t* inputs, int64_t* targets) {
  const auto count = static_cast<int64_t>(window_.size());
  if (tokens_->size() - cursor_ < count) {
    cursor_ = 0;
    ++epoch_;
  }
  tokens_->copy(cursor_, count, window_.data());
  std::copy(window_.begin(), window_.end() - 1, inputs);
  std::copy(window_.begin() + 1, window_.end(), targets);
  cursor_ += count;
}

nlohmann::json StreamPacking::position() const {
  return {
      {"packing", "stream"}, {"tokens", tokens_->size()}, {"epoch", epoch_}, {"cursor", cursor_}};
}

void StreamPacking::restore(const nlohmann::json& position) {
  const PositionReader reader(position, "stream", tokens_->size());
  const int64_t epoch = reader.at_least_zero("epoch");
  cursor_ = reader.in_data("cursor");
  epoch_ = epoch;
}

}  // namespace nanoflex::data
