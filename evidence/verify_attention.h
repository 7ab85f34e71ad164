#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace nanoflex {

struct VerifyAttentionOptions {
  std::filesystem::path tensors = {}, out = {};  ///< .safetensors
  std::string mask = "full";
  std::string score = "";            ///< unchanged
  std::optional<double> scale = {};  ///< default 1 / sqrt(D)
  std::string backend = "auto";
  std::string device = "cpu";
};

/// Runs one attention call on tensors from a file, for comparison with another library. Reads q [B,
/// H, T, D], k and v [B, H_kv, S, D], perhaps do like q, and any other tensor as a captured one
/// under its name, which mask and score may read; writes o, logsumexp (where the backend has one)
/// and, given do, dq, dk, dv and d_NAME for every captured tensor of floating point that the result
/// depends on. Returns a line that says what ran. Throws std::invalid_argument for what is missing
/// or does not fit.
std::string verify_attention(const VerifyAttentionOptions& options);

}  // namespace nanoflex
