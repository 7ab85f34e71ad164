// Tokens -> batches for the training step.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "data/packing.h"
#include "data/prefetch.h"
#include "data/shard.h"

namespace nanoflex::data {

// B rows of T tokens, on the CPU.
struct Batch {
  at::Tensor tokens;           // [B, T] int64
  at::Tensor targets;          // [B, T] int64: the token that follows; -1 would be ignored
  at::Tensor document_starts;  // [B, T] bool: true where a document begins
};

// Hands out batches for ever, epoch after epoch, read ahead on a thread. For one caller at a time.
class Loader {
 public:
  // Throws std::invalid_argument as make_packing does.
  Loader(std::shared_ptr<const Tokens> tokens, LoaderOptions options);
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  Batch next();
  // Where the batch after the last one handed out begins: a small value. A loader over the same
  // tokens that is restored to it hands out the same batches from there on.
  nlohmann::json position() const { return position_; }
  // Throws std::invalid_argument for a position that does not fit the data, and stays where it was.
  void restore(const nlohmann::json& position);

 private:
  struct Item {
    Batch batch;
    nlohmann::json position_after;
  };
  Item read();

  std::shared_ptr<const Tokens> tokens_;
  LoaderOptions options_;
  std::unique_ptr<Packing> packing_;
  nlohmann::json position_;
  std::unique_ptr<Prefetch<Item>> prefetch_;  // last: its thread uses the rest
};

}  // namespace nanoflex::data
