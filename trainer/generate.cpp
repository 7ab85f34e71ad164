#include "trainer/generate.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

namespace nanoflex {
namespace {

int64_t draw(at::Tensor logits, const GenerateOptions& options, const at::Generator& generator) {
  if (options.allowed_vocab > 0) logits = logits.narrow(0, 0, options.allowed_vocab);
  if (options.temperature == 0) return logits.argmax().item<int64_t>();
  logits = (logits.to(at::kDouble) - logits.max()) / options.temperature;
  if (options.top_k > 0 && options.top_k < logits.size(0)) {
    const at::Tensor least = std::get<0>(logits.topk(options.top_k)).min();
    logits = logits.masked_fill(logits < least, -std::numeric_limits<double>::infinity());
  }
  return at::multinomial(logits.softmax(0), 1, /*replacement=*/false, generator).item<int64_t>();
}

KeyValueCache make_cache(const Gpt& model) {
  const GptOptions& o = model.options();
  return KeyValueCache({.batch = 1,
                        .n_layer = o.n_layer,
                        .n_kv_head = o.n_kv_head,
                        .head_dim = o.head_dim(),
                        .capacity = o.sequence_len,
                        .device = model.parameters().front().value.device(),
                        .dtype = model.activations()});
}

}  // namespace

void generate(const Gpt& model, const AttentionSetup& attention, std::vector<int64_t> prompt,
              const GenerateOptions& options, const std::function<void(int64_t)>& emit) {
  const at::NoGradGuard no_grad;
  const int64_t longest = model.options().sequence_len;
  const at::Device device = model.parameters().front().value.device();
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(options.seed);
  std::vector<int64_t> context = std::move(prompt), fresh = context;
  KeyValueCache cache = make_cache(model);
  for (int64_t i = 0; i < options.tokens; ++i) {
    if (cache.length() + static_cast<int64_t>(fresh.size()) > longest) {
      const int64_t kept = std::max<int64_t>(1, longest / 2);
      fresh.assign(context.end() - std::min<int64_t>(kept, context.size()), context.end());
      cache = make_cache(model);
    }
    const int64_t seen = cache.length() + static_cast<int64_t>(fresh.size());
    const at::Tensor starts = at::zeros({1, seen}, at::kBool).to(device);  // all one document
    const at::Tensor tokens = at::tensor(fresh).unsqueeze(0).to(device);
    const at::Tensor logits = model.logits(tokens, attention.bind(starts), &cache);
    const int64_t next = draw(logits[0][-1].to(at::kCPU), options, generator);
    emit(next);
    context.push_back(next);
    fresh = {next};
  }
}

}  // namespace nanoflex
