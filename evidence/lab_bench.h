#pragma once

#include <ATen/Functions.h>

#include <nlohmann/json.hpp>
#include <string>

namespace nanoflex {

struct LabOptions {
  int64_t batch = 2, heads = 8, seq_len = 1024, head_dim = 64;
  int64_t block_size = 128;  ///< of flex's block mask
  int64_t doc_span = 256;    ///< tokens of a document
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  int64_t repeat = 5;
};

/// The published labs' sizes, full and `quick` (B 1, H 4, T 512, blocks of 64, documents of 128).
LabOptions lab_options(bool quick);

/// Flash lab: causal attention by plain tensors against flash. Flex lab: a mask of documents and
/// ALiBi, evaluated on whole tensors (vanilla) against fused (flex). Forward and backward, taking
/// turns. Returns {machine, gemm_tflops, gpu, pairs_bytes, rows}: `gpu` says in words whether the
/// labs ran on one, pairs_bytes is what one [B, H, T, T] tensor takes in the labs' dtype; a row has
/// what every bench's has, and the fused ones max_difference, mean_difference and allclose of their
/// outputs; the flex lab's also operations, those of LibTorch that a pass dispatched. Throws
/// std::invalid_argument for sizes below 1 and what attend() refuses. Progress goes to stderr.
nlohmann::ordered_json bench_lab(const LabOptions& options);

std::string lab_markdown(const nlohmann::ordered_json& bench);
std::string lab_chart(const nlohmann::ordered_json& bench);

}  // namespace nanoflex
