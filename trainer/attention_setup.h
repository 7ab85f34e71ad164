#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "attention/attention.h"
#include "model/gpt.h"
#include "trainer/config.h"

namespace nanoflex {

/// The attention of a run: backend and mask chosen and checked once, bound to documents per batch.
struct AttentionSetup {
  std::string backend;  ///< never "auto"
  bool fused = false;
  int64_t n_head = 1;
  flex::Expression mask = {};                        ///< may hold the unbound tensor `document`
  flex::Expression score = {};                       ///< undefined: unchanged
  std::vector<std::optional<int64_t>> windows = {};  ///< of each layer; empty: none has one
  std::map<std::string, at::Tensor> tensors = {};    ///< that mask and score read, beside documents
  std::vector<ScoreTensor> learned = {};             ///< those of them that are to be parameters

  /// For rows whose documents begin where document_starts [B, T] (bool) says.
  AttentionChoice bind(const at::Tensor& document_starts) const;
  /// For rows whose tokens are of these documents [B, T] (int64), numbered within the row. The
  /// tensor stays part of the choice: what is written into it later counts.
  AttentionChoice bind_documents(const at::Tensor& documents) const;
  /// The same with its tensors' values on the CPU, where masks are looked at.
  AttentionSetup on_cpu() const;
  /// From now on reads the model's parameters where tensors are learned.
  void read_from(const Gpt& model);
};

/// The model that the config describes, with the tensors that its score learns.
GptOptions gpt_options(const Config& config, const AttentionSetup& attention);

/// Resolves "auto" and refuses a backend that cannot run the mask, in its own words.
AttentionSetup choose_attention(const Config& config, at::Device device, at::ScalarType dtype);

/// How much attention these rows ask for.
struct MaskShare {
  double sparsity = 0;  ///< share of query-key pairs that are hidden, as a mean over layers
  double visited =
      1;  ///< share of pairs in blocks that the backend works on; all if it is not fused
};
MaskShare mask_share(const AttentionSetup& attention, const at::Tensor& document_starts);

}  // namespace nanoflex
