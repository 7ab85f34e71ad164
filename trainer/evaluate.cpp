#include "trainer/evaluate.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace nanoflex {
namespace {

// As one batch; the loader's have one row, so that which rows are read is no matter of batches.
data::Batch next_rows(data::Loader& loader, int64_t count) {
  std::vector<at::Tensor> tokens, targets, starts;
  for (int64_t i = 0; i < count; ++i) {
    const data::Batch row = loader.next();
    tokens.push_back(row.tokens), targets.push_back(row.targets);
    starts.push_back(row.document_starts);
  }
  return {at::cat(tokens), at::cat(targets), at::cat(starts)};
}

}  // namespace

std::optional<Validation> evaluate(const Gpt& model, const AttentionSetup& attention,
                                   std::shared_ptr<const data::Tokens> tokens,
                                   const data::Tokenizer* tokenizer,
                                   const EvaluateOptions& options) {
  const int64_t T = model.options().sequence_len;
  const int64_t there = tokens ? tokens->size() / (T + 1) : 0;
  const int64_t rows = std::min(there, (options.tokens + T - 1) / T);
  if (rows < 1) return std::nullopt;
  data::Loader loader(tokens, {.batch_size = 1,
                               .sequence_len = T,
                               .bos_id = options.bos_id,
                               .packing = "stream",
                               .prefetch = false});
  double nats = 0, text_nats = 0;
  int64_t count = 0, bytes = 0;
  for (int64_t row = 0; row < rows; row += options.batch_size) {
    const data::Batch batch = next_rows(loader, std::min(options.batch_size, rows - row));
    const AttentionChoice choice = attention.bind(batch.document_starts.to(options.device));
    const at::Tensor losses =
        model
            .token_losses(batch.tokens.to(options.device), batch.targets.to(options.device), choice)
            .to(at::kCPU, at::kDouble);
    nats += losses.sum().item<double>();
    count += (batch.targets != -1).sum().item<int64_t>();
    if (!tokenizer) continue;
    // Tokens that stand for no text, such as BOS, count neither bits nor bytes.
    const at::Tensor sizes = tokenizer->token_bytes(), target = batch.targets.flatten();
    const at::Tensor no_text = (target < 0).logical_or(target >= sizes.size(0));
    const at::Tensor target_bytes = sizes.index_select(0, target.masked_fill(no_text, 0))
                                        .masked_fill(no_text, 0)
                                        .view(batch.targets.sizes());
    bytes += target_bytes.sum().item<int64_t>();
    text_nats += losses.masked_fill(target_bytes == 0, 0).sum().item<double>();
  }
  Validation result{.loss = nats / static_cast<double>(count), .tokens = count};
  if (bytes > 0) result.bits_per_byte = text_nats / std::log(2.0) / static_cast<double>(bytes);
  return result;
}

}  // namespace nanoflex
