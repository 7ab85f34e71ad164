#pragma once

#include "data/packing.h"

namespace nanoflex::data {

// Rows of T + 1 tokens that each start with BOS, nanochat's BestFit-crop: of a buffer of documents
// the largest that fits the rest of the row is taken, again and again; when none fits, the shortest
// is cropped to fill the row. Inputs are row[:-1], targets row[1:]. The buffer is refilled in the
// data's order and drained at the end of an epoch, so each document is drawn once an epoch. Source:
// github.com/karpathy/nanochat, nanochat/dataloader.py.
class BestFitPacking : public Packing {
 public:
  BestFitPacking(std::shared_ptr<const Tokens> tokens, const LoaderOptions& options);
  void next(int64_t* inputs, int64_t* targets) override;
  nlohmann::json position() const override;
  void restore(const nlohmann::json& position) override;

 private:
  struct Document {
    int64_t begin, size;
  };
  void fill_row();
  void refill();
  Document take(int64_t room);

  std::shared_ptr<const Tokens> tokens_;
  int64_t batch_size_, sequence_len_, bos_id_;
  int64_t first_document_;  // tokens before it belong to no document
  std::vector<int64_t> row_;
  std::vector<Document> buffer_;  // in the data's order
  int64_t epoch_ = 0, cursor_;    // of the next document to buffer
};

}  // namespace nanoflex::data
