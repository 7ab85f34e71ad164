#pragma once

#include <ATen/Functions.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "trainer/attention_setup.h"

namespace nanoflex {

struct VerifyModelOptions {
  std::string model = "standard";  ///< a name of verified_models()
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
  int64_t steps = 22;  ///< of training
};

/// The names of the models that can be verified.
std::vector<std::string> verified_models();

/// One comparison of a model under two backends.
struct ModelCheck {
  std::string heads;      ///< MQA, GQA or MHA
  std::string backend;    ///< what is checked
  std::string check;      ///< what of it
  double difference = 0;  ///< largest, absolute
  double bound = 0;
  std::string bound_from;  ///< of what is left out, why
  bool left_out = false;   ///< the backend cannot run here
  bool needed = false;     ///< then all is not well without it

  bool passed() const { return left_out ? !needed : difference <= bound; }  ///< not for NaN
};

/// Logits of a full forward pass, of the last token and of a chunk decoded with a cache, prefill
/// and decoding against one pass, gradients of all parameters, and the losses of `steps` steps:
/// under `candidate` against `reference`, for the losses in fp32. Throws std::invalid_argument for
/// an unknown model.
std::vector<ModelCheck> verify_pair(const VerifyModelOptions& options, int64_t n_kv_head,
                                    const AttentionSetup& candidate,
                                    const AttentionSetup& reference);

/// verify_pair() for every backend that can decode under a causal mask against "vanilla", with
/// every kind of heads, and a line for each that cannot, which fails where it is a fused one.
/// Progress goes to stderr.
std::vector<ModelCheck> verify_suite(const VerifyModelOptions& options);

/// {machine, model, device, dtype, passed, checks}, and lines of PASS or FAIL as a table.
nlohmann::ordered_json to_json(const std::vector<ModelCheck>& checks,
                               const VerifyModelOptions& options);
std::string to_markdown(const std::vector<ModelCheck>& checks);

}  // namespace nanoflex
