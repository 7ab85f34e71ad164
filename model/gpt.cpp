#include "model/gpt.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace nanoflex {
namespace {

// std = min(1, sqrt(fan_out / fan_in)) / sqrt(fan_in), nanochat's width-aware choice.
at::Tensor random_matrix(int64_t fan_out, int64_t fan_in, const at::Generator& generator) {
  const double out = static_cast<double>(fan_out), in = static_cast<double>(fan_in);
  const double std = std::min(1.0, std::sqrt(out / in)) / std::sqrt(in);
  return at::empty({fan_out, fan_in}, at::kFloat).normal_(0, std, generator);
}

const std::string kScorePrefix = "transformer.score.";

[[noreturn]] void reject(const std::string& what) {
  throw std::invalid_argument("[model] " + what);
}

}  // namespace

void check(const GptOptions& o) {
  const std::pair<const char*, int64_t> sizes[] = {
      {"n_layer", o.n_layer},           {"n_head", o.n_head},
      {"n_kv_head", o.n_kv_head},       {"n_embd", o.n_embd},
      {"sequence_len", o.sequence_len}, {"vocab_size", o.vocab_size}};
  for (const auto& [name, value] : sizes) {
    if (value < 1) reject(std::string(name) + " must be at least 1, is " + std::to_string(value));
  }
  if (o.n_embd % o.n_head != 0) {
    reject("n_embd must be divisible by n_head, is " + std::to_string(o.n_embd) + " for n_head " +
           std::to_string(o.n_head));
  }
  if (o.n_head % o.n_kv_head != 0) {
    reject("n_head must be divisible by n_kv_head, is " + std::to_string(o.n_head) +
           " for n_kv_head " + std::to_string(o.n_kv_head));
  }
  if (o.head_dim() % 2 != 0) {
    reject("rotary embedding needs an even head size, n_embd / n_head is " +
           std::to_string(o.head_dim()) + "; change n_embd or n_head");
  }
}

Gpt::Gpt(const GptOptions& options, uint64_t seed, at::Device device, at::ScalarType activations)
    : options_((check(options), options)),
      activations_(activations),
      rotary_(options.sequence_len, options.head_dim(), device) {
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const auto add = [&](const std::string& name, Role role, const at::Tensor& value) {
    const at::Tensor master = value.to(device).contiguous().requires_grad_();
    parameters_.push_back({name, role, master, master});
    return parameters_.back().weight;
  };
  const auto random = [&](const std::string& name, int64_t fan_out, int64_t fan_in) {
    return add(name, Role::kMatrix, random_matrix(fan_out, fan_in, generator));
  };
  const auto zero = [&](const std::string& name, int64_t fan_out, int64_t fan_in) {
    return add(name, Role::kMatrix, at::zeros({fan_out, fan_in}));
  };
  const int64_t width = options.n_embd, kv_width = options.n_kv_head * options.head_dim();

  embedding_ = add("transformer.wte.weight", Role::kEmbedding,
                   at::empty({options.vocab_size, width}).normal_(0, 1, generator));
  for (int64_t i = 0; i < options.n_layer; ++i) {
    const std::string layer = "transformer.h." + std::to_string(i);
    blocks_.push_back({.c_q = random(layer + ".attn.c_q.weight", width, width),
                       .c_k = random(layer + ".attn.c_k.weight", kv_width, width),
                       .c_v = random(layer + ".attn.c_v.weight", kv_width, width),
                       .attn_proj = zero(layer + ".attn.c_proj.weight", width, width),
                       .c_fc = random(layer + ".mlp.c_fc.weight", 4 * width, width),
                       .mlp_proj = zero(layer + ".mlp.c_proj.weight", width, 4 * width)});
  }
  for (const ScoreTensor& tensor : options.score_tensors) {
    add(kScorePrefix + tensor.name, Role::kEmbedding, tensor.initial.to(at::kFloat).clone());
  }
  head_ = add("lm_head.weight", Role::kUnembedding, at::zeros({options.vocab_size, width}));
}

std::map<std::string, at::Tensor> Gpt::score_tensors() const {
  std::map<std::string, at::Tensor> tensors;
  for (const Parameter& parameter : parameters_) {
    if (parameter.name.rfind(kScorePrefix, 0) == 0) {
      tensors[parameter.name.substr(kScorePrefix.size())] = parameter.value;
    }
  }
  return tensors;
}

at::Tensor Gpt::attend_layer(const Block& block, const at::Tensor& x, int64_t layer,
                             const AttentionChoice& attention, KeyValueCache* cache) const {
  const int64_t B = x.size(0), T = x.size(1), D = options_.head_dim();
  const int64_t position = cache ? cache->length() : 0;
  const at::Tensor q = project(x, block.c_q).view({B, T, options_.n_head, D});
  const at::Tensor k = project(x, block.c_k).view({B, T, options_.n_kv_head, D});
  const at::Tensor v = project(x, block.c_v).view({B, T, options_.n_kv_head, D});

  const at::Tensor queries = rotary_.rotate_and_norm(q, position).transpose(1, 2);
  at::Tensor keys = rotary_.rotate_and_norm(k, position).transpose(1, 2);  // [B, H_kv, T, D]
  at::Tensor values = v.transpose(1, 2);
  if (cache) std::tie(keys, values) = cache->append(layer, keys, values);

  Spec spec = attention.spec;
  if (!attention.masks.empty()) spec.mask = attention.masks.at(layer);
  const at::Tensor y = attend(queries, keys, values, spec, attention.backend).output;
  return project(y.transpose(1, 2).reshape({B, T, options_.n_embd}), block.attn_proj);
}

at::Tensor Gpt::hidden(const at::Tensor& tokens, const AttentionChoice& attention,
                       KeyValueCache* cache) const {
  const int64_t end = tokens.size(1) + (cache ? cache->length() : 0);
  if (end > options_.sequence_len) {
    reject("the model reads at most sequence_len " + std::to_string(options_.sequence_len) +
           " tokens, " + std::to_string(end) + " were given");
  }
  // On a CPU the table's gradient is the rows of these tokens, and zeros are neither written nor
  // read; a GPU's fused AdamW wants them all.
  const at::Tensor embedded =
      at::embedding(embedding_.value(), tokens, /*padding_idx=*/-1,
                    /*scale_grad_by_freq=*/false, /*sparse=*/tokens.is_cpu());
  at::Tensor x = rms_norm(embedded.to(activations_));
  for (int64_t layer = 0; layer < options_.n_layer; ++layer) {
    const Block& block = blocks_[layer];
    x = x + attend_layer(block, rms_norm(x), layer, attention, cache);
    x = x + project(relu_squared(project(rms_norm(x), block.c_fc)), block.mlp_proj);
  }
  if (cache) cache->advance(tokens.size(1));
  return rms_norm(x);
}

at::Tensor Gpt::logits(const at::Tensor& tokens, const AttentionChoice& attention,
                       KeyValueCache* cache) const {
  const at::Tensor x = hidden(tokens, attention, cache).flatten(0, 1);
  return head_logits(x, head_).view({tokens.size(0), tokens.size(1), options_.vocab_size});
}

at::Tensor Gpt::loss(const at::Tensor& tokens, const at::Tensor& targets,
                     const AttentionChoice& attention, const HeadLossOptions& head) const {
  return head_loss(hidden(tokens, attention).flatten(0, 1), head_, targets.flatten(), head);
}

at::Tensor Gpt::token_losses(const at::Tensor& tokens, const at::Tensor& targets,
                             const AttentionChoice& attention) const {
  const at::NoGradGuard no_grad;
  const at::Tensor x = hidden(tokens, attention).flatten(0, 1);
  return head_token_losses(x, head_, targets.flatten()).view(targets.sizes());
}

}  // namespace nanoflex
