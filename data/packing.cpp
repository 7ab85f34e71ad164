#include "data/packing.h"

#include <stdexcept>

#include "data/best_fit_packing.h"
#include "data/stream_packing.h"

namespace nanoflex::data {

namespace {

void require_positive(const char* key, int64_t value) {
  if (value > 0) return;
  throw std::invalid_argument(std::string("[data] ") + key + " must be at least 1, is " +
                              std::to_string(value));
}

}  // namespace

std::unique_ptr<Packing> make_packing(std::shared_ptr<const Tokens> tokens,
                                      const LoaderOptions& options) {
  const bool best_fit = options.packing == "best_fit";
  if (!best_fit && options.packing != "stream") {
    throw std::invalid_argument("[data] packing must be stream or best_fit, is " + options.packing);
  }
  require_positive("batch_size", options.batch_size);
  require_positive("sequence_len", options.sequence_len);
  const int64_t rows = options.batch_size, columns = options.sequence_len;
  const int64_t needed = best_fit ? rows * (columns + 1) : rows * columns + 1;
  if (tokens->size() < needed) {
    throw std::invalid_argument("[data] the data has " + std::to_string(tokens->size()) +
                                " tokens, fewer than the " + std::to_string(needed) +
                                " of one batch (batch_size " + std::to_string(rows) +
                                " x sequence_len " + std::to_string(columns) +
                                "); lower batch_size or sequence_len, or give more text");
  }
  if (best_fit) return std::make_unique<BestFitPacking>(std::move(tokens), options);
  return std::make_unique<StreamPacking>(std::move(tokens), options);
}

}  // namespace nanoflex::data
