// How a token sequence becomes batches: the order of reading, and where it stands.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/shard.h"

namespace nanoflex::data {

struct LoaderOptions {
  int64_t batch_size = 1;          // B: rows
  int64_t sequence_len = 1;        // T: tokens a row
  int64_t bos_id = 0;              // begins a document
  std::string packing = "stream";  // or "best_fit"
  bool prefetch = true;            // read ahead on a thread
};

class Packing {
 public:
  virtual ~Packing() = default;
  // inputs, targets: [B, T] row-major, to be filled with the next batch.
  virtual void next(int64_t* inputs, int64_t* targets) = 0;
  // Where the next batch begins.
  virtual nlohmann::json position() const = 0;
  // Goes to a position of the same packing over the same tokens. Throws std::invalid_argument for
  // any other, and stays where it was.
  virtual void restore(const nlohmann::json& position) = 0;
};

// Throws std::invalid_argument for an unknown packing, sizes that are not positive, and data that
// is too short for one batch or, for best_fit, has no document.
std::unique_ptr<Packing> make_packing(std::shared_ptr<const Tokens> tokens,
                                      const LoaderOptions& options);

}  // namespace nanoflex::data
