#pragma once

#include <ATen/Functions.h>

#include <nlohmann/json.hpp>
#include <string>

#include "model/gpt.h"

namespace nanoflex {

struct ForwardOptions {
  GptOptions model = {
      .n_layer = 8, .n_head = 8, .n_kv_head = 4, .n_embd = 512, .sequence_len = 512};
  int64_t batch = 8;
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  int64_t repeat = 5;
};

/// The published microbenchmark's model; `quick`: 2 layers of it and a batch of 2.
ForwardOptions forward_options(bool quick);

/// Times a GPT's forward pass from tokens to logits, without gradients, with sdpa, flash and flex
/// under a causal mask, taking turns. Returns {machine, gemm_tflops, rows, published}: a row has
/// what every bench's has and tokens_per_second; its peak_bytes count the weights. Progress goes to
/// stderr.
nlohmann::ordered_json bench_forward(const ForwardOptions& options);

std::string forward_markdown(const nlohmann::ordered_json& bench);
std::string forward_chart(const nlohmann::ordered_json& bench);

}  // namespace nanoflex
