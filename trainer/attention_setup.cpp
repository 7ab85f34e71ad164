#include "trainer/attention_setup.h"

#include "attention/flex/evaluate.h"
#include "attention/flex/parse.h"
#include "attention/registry.h"

namespace nanoflex {
namespace {

constexpr int64_t kLongestCountedRow = 4096;

flex::Expression mask_of(const Config& config) {
  const bool automatic = config.mask == "auto";
  if (!automatic) return flex::parse_mask(config.mask);
  return flex::parse_mask(config.attention == "flex" ? "causal & document" : "causal");
}

}  // namespace

AttentionChoice AttentionSetup::bind(const at::Tensor& document_starts) const {
  const at::Tensor document = document_starts.cumsum(1);  // [B, T], numbered within the row
  return {.backend = backend, .spec = {.mask = flex::bind(mask, {{"document", document}})}};
}

AttentionSetup choose_attention(const Config& config, at::Device device, at::ScalarType dtype) {
  AttentionSetup setup{.backend = config.attention, .mask = mask_of(config)};
  const int64_t T = config.sequence_len, D = config.n_embd / config.n_head;
  const auto kind = at::TensorOptions().dtype(dtype).device(device);
  const at::Tensor q = at::zeros({1, 1, 1, 1}, kind).expand({1, config.n_head, T, D});
  const at::Tensor k = at::zeros({1, 1, 1, 1}, kind).expand({1, config.n_kv_head, T, D});
  const at::Tensor starts = at::zeros({1, T}, at::TensorOptions().dtype(at::kBool).device(device));
  const Backend& backend = choose_backend(config.attention, q, k, k, setup.bind(starts).spec);
  setup.backend = backend.name;
  setup.fused = backend.fused;
  return setup;
}

std::optional<double> mask_sparsity(const AttentionSetup& attention,
                                    const at::Tensor& document_starts) {
  const int64_t T = document_starts.size(1);
  if (T > kLongestCountedRow) return std::nullopt;
  double visible = 0;
  for (int64_t row = 0; row < document_starts.size(0); ++row) {
    const AttentionChoice choice = attention.bind(document_starts.narrow(0, row, 1));
    const at::Tensor mask = flex::evaluate(
        choice.spec.mask, {.B = 1, .H = 1, .T = T, .S = T, .device = document_starts.device()});
    const auto pairs = static_cast<double>(T) * static_cast<double>(T);
    visible += mask.expand({1, 1, T, T}).sum().item<double>() / pairs;
  }
  return 1 - visible / static_cast<double>(document_starts.size(0));
}

}  // namespace nanoflex
