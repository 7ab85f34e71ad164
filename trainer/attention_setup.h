#pragma once

#include <functional>
#include <optional>
#include <string>

#include "attention/attention.h"
#include "model/gpt.h"
#include "trainer/config.h"

namespace nanoflex {

/// The attention of a run: backend and mask chosen and checked once, bound to documents per batch.
struct AttentionSetup {
  std::string backend;  ///< never "auto"
  bool fused = false;
  flex::Expression mask;  ///< may hold the unbound tensor `document`

  /// For rows whose documents begin where document_starts [B, T] (bool) says.
  AttentionChoice bind(const at::Tensor& document_starts) const;
};

/// Resolves "auto" and refuses a backend that cannot run the mask, in its own words.
AttentionSetup choose_attention(const Config& config, at::Device device, at::ScalarType dtype);

/// The share of query-key pairs that the mask hides in these rows; empty for rows too long to look
/// at pair by pair.
std::optional<double> mask_sparsity(const AttentionSetup& attention,
                                    const at::Tensor& document_starts);

}  // namespace nanoflex
