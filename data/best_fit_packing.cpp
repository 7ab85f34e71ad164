#include "data/best_fit_packing.h"

#include <algorithm>
#include <stdexcept>

#include "data/position.h"

namespace nanoflex::data {

namespace {
constexpr size_t kBufferedDocuments = 1000;
}

BestFitPacking::BestFitPacking(std::shared_ptr<const Tokens> tokens, const LoaderOptions& options)
    : tokens_(std::move(tokens)),
      batch_size_(options.batch_size),
      sequence_len_(options.sequence_len),
      bos_id_(options.bos_id),
      first_document_(tokens_->find(bos_id_, 0)),
      row_(sequence_len_ + 1),
      cursor_(first_document_) {
  if (first_document_ == tokens_->size()) {
    throw std::invalid_argument("[data] packing best_fit needs documents that begin with token " +
                                std::to_string(bos_id_) +
                                ", and the data holds none; check bos_id, or use packing: stream");
  }
}

void BestFitPacking::next(int64_t* inputs, int64_t* targets) {
  for (int64_t row = 0; row < batch_size_; ++row) {
    fill_row();
    inputs = std::copy(row_.begin(), row_.end() - 1, inputs);
    targets = std::copy(row_.begin() + 1, row_.end(), targets);
  }
}

void BestFitPacking::fill_row() {
  const auto capacity = static_cast<int64_t>(row_.size());
  for (int64_t filled = 0; filled < capacity;) {
    refill();
    const Document document = take(capacity - filled);
    const int64_t count = std::min(document.size, capacity - filled);
    tokens_->copy(document.begin, count, row_.data() + filled);
    filled += count;
  }
}

void BestFitPacking::refill() {
  if (buffer_.empty() && cursor_ == tokens_->size()) {
    cursor_ = first_document_;
    ++epoch_;
  }
  while (buffer_.size() < kBufferedDocuments && cursor_ < tokens_->size()) {
    const int64_t end = tokens_->find(bos_id_, cursor_ + 1);
    buffer_.push_back({cursor_, end - cursor_});
    cursor_ = end;
  }
}

BestFitPacking::Document BestFitPacking::take(int64_t room) {
  auto largest = buffer_.end(), shortest = buffer_.begin();
  for (auto document = buffer_.begin(); document != buffer_.end(); ++document) {
    if (document->size < shortest->size) shortest = document;
    if (document->size > room) continue;
    if (largest == buffer_.end() || document->size > largest->size) largest = document;
  }
  const auto chosen = largest == buffer_.end() ? shortest : largest;
  const Document document = *chosen;
  buffer_.erase(chosen);
  return document;
}

nlohmann::json BestFitPacking::position() const {
  auto buffered = nlohmann::json::array();
  for (const Document& document : buffer_) buffered.push_back(document.begin);
  return {{"packing", "best_fit"},
          {"tokens", tokens_->size()},
          {"epoch", epoch_},
          {"cursor", cursor_},
          {"buffered", std::move(buffered)}};
}

void BestFitPacking::restore(const nlohmann::json& position) {
  const PositionReader reader(position, "best_fit", tokens_->size());
  const int64_t epoch = reader.at_least_zero("epoch");
  const int64_t cursor = reader.in_data("cursor");
  const auto buffered = position.value("buffered", nlohmann::json());
  if (!buffered.is_array() || buffered.size() > kBufferedDocuments) {
    reader.refuse("needs a list `buffered` of at most " + std::to_string(kBufferedDocuments));
  }
  const auto begins_document = [&](int64_t at) {
    return at >= 0 && at < tokens_->size() && tokens_->at(at) == bos_id_;
  };
  if (cursor < tokens_->size() && !begins_document(cursor)) {
    reader.refuse("`cursor` " + std::to_string(cursor) + " is not the start of a document");
  }
  std::vector<Document> documents;
  for (const auto& begin : buffered) {
    if (!begin.is_number_integer() || !begins_document(begin.get<int64_t>())) {
      reader.refuse("`buffered` " + begin.dump() + " is not the start of a document");
    }
    const auto at = begin.get<int64_t>();
    documents.push_back({at, tokens_->find(bos_id_, at + 1) - at});
  }
  epoch_ = epoch;
  cursor_ = cursor;
  buffer_ = std::move(documents);
}

}  // namespace nanoflex::data
