#pragma once

#include <memory>
#include <optional>

#include "data/loader.h"
#include "data/tokenizer.h"
#include "trainer/attention_setup.h"

namespace nanoflex {

struct Validation {
  double loss = 0;                           ///< mean cross-entropy in nats
  std::optional<double> bits_per_byte = {};  ///< of the text, when a tokenizer tells its bytes
  int64_t tokens = 0;
};

struct EvaluateOptions {
  int64_t batch_size, tokens;  ///< rows at once; tokens to read, at most all there are
  at::Device device;
  int64_t bos_id;
};

/// Reads the first tokens of `data` as a stream: the same at every call, whatever the batch size.
/// Empty when there are fewer tokens than a row needs.
std::optional<Validation> evaluate(const Gpt& model, const AttentionSetup& attention,
                                   std::shared_ptr<const data::Tokens> tokens,
                                   const data::Tokenizer* tokenizer,
                                   const EvaluateOptions& options);

}  // namespace nanoflex
