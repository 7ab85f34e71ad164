#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "attention/attention.h"
#include "model/cache.h"
#include "model/cast_weight.h"
#include "model/head.h"
#include "model/layers.h"

namespace nanoflex {

/// A table that score expressions read and training changes, shared by all layers. Its parameter is
/// `transformer.score.<name>`.
struct ScoreTensor {
  std::string name;
  at::Tensor initial;
};

/// The size of a GPT. Defaults: the fixed-FLOPs baseline.
struct GptOptions {
  int64_t n_layer = 4;
  int64_t n_head = 4;
  int64_t n_kv_head = 4;  ///< key/value heads; divides n_head (1: multi-query, n_head: multi-head)
  int64_t n_embd = 128;   ///< width; divisible by n_head, with even heads
  int64_t sequence_len = 256;
  int64_t vocab_size = 50304;
  std::vector<ScoreTensor> score_tensors = {};

  int64_t head_dim() const { return n_embd / n_head; }
};

/// Which optimizer and learning rate a parameter gets.
/// kEmbedding: any table that is read by index.
enum class Role { kEmbedding, kMatrix, kUnembedding };

struct Parameter {
  std::string name;  ///< nanochat's name, e.g. transformer.h.0.attn.c_q.weight
  Role role;
  at::Tensor value;   ///< fp32 master weight
  CastWeight weight;  ///< it again, with its copy in the activations' dtype
};

/// What runs inside every attention layer.
struct AttentionChoice {
  std::string backend = "auto";              ///< a name of attention/registry.h
  Spec spec;                                 ///< captured tensors bound for this batch
  std::vector<flex::Expression> masks = {};  ///< of each layer, in place of the spec's; or none
};

/// nanochat's GPT of December 2025: rotary positions, RMSNorm without weights, normalised queries
/// and keys, relu squared MLP, no biases, untied head with a soft cap of 15 on the logits.
class Gpt {
 public:
  /// Weights are drawn on the CPU from `seed`, so a seed means the same on every device.
  /// `activations`: float32 or bfloat16 (float64 for tests).
  /// Throws std::invalid_argument when the sizes contradict each other.
  Gpt(const GptOptions& options, uint64_t seed, at::Device device, at::ScalarType activations);

  /// tokens: [B, T] int64; result: [B, T, n_embd], normalised, in the activations' dtype.
  /// With a cache, the tokens stand behind those it holds, and it grows by T.
  at::Tensor hidden(const at::Tensor& tokens, const AttentionChoice& attention,
                    KeyValueCache* cache = nullptr) const;

  /// tokens: [B, T] int64; result: [B, T, vocab_size] fp32, soft-capped.
  at::Tensor logits(const at::Tensor& tokens, const AttentionChoice& attention,
                    KeyValueCache* cache = nullptr) const;

  /// Mean cross-entropy in nats, fp32 scalar: the sum over targets that are not -1, divided by
  /// head.count (so that micro-batches of one step add up). tokens, targets: [B, T] int64.
  at::Tensor loss(const at::Tensor& tokens, const at::Tensor& targets,
                  const AttentionChoice& attention, const HeadLossOptions& head) const;

  /// Cross-entropy of each token in nats, [B, T] fp32, 0 where the target is -1; not
  /// differentiable.
  at::Tensor token_losses(const at::Tensor& tokens, const at::Tensor& targets,
                          const AttentionChoice& attention) const;

  const GptOptions& options() const { return options_; }
  at::ScalarType activations() const { return activations_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  std::map<std::string, at::Tensor> score_tensors() const;  ///< parameters, by name

 private:
  struct Block {
    CastWeight c_q, c_k, c_v, attn_proj, c_fc, mlp_proj;
  };

  at::Tensor attend_layer(const Block& block, const at::Tensor& x, int64_t layer,
                          const AttentionChoice& attention, KeyValueCache* cache) const;

  GptOptions options_;
  at::ScalarType activations_;
  Rotary rotary_;
  std::vector<Parameter> parameters_;
  CastWeight embedding_, head_;
  std::vector<Block> blocks_;
};

/// Throws std::invalid_argument naming the first value that is impossible, and how to mend it.
void check(const GptOptions& options);

}  // namespace nanoflex
