#pragma once

#include <ATen/Functions.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "attention/cpu/program.h"
#include "attention/flex/bounds.h"
#include "attention/flex/expression.h"
#include "attention/flex/tile_code_builder.h"

namespace nanoflex::flex {

/// What the tile code of one call is made for.
struct TileCodeOptions {
  Expression mask = {};   ///< undefined: every pair may attend
  Expression score = {};  ///< undefined: unchanged
  int64_t B = 1, H = 1, T = 1, S = 1;

  Box box() const;  ///< of all index values
  std::vector<int64_t> sizes() const { return {B, H, T, S}; }
};

/// Why the tile kernels, which hold integers in 32 bits and read captured tensors unchecked, cannot
/// run the expressions, in words; "" when they can. Throws std::invalid_argument for an unbound
/// tensor.
std::string why_no_tile_code(const TileCodeOptions& options);

/// Of a captured tensor to which gradients of the score flow.
struct CapturedGradient {
  std::vector<int64_t> sizes;
  int64_t count;  ///< of its elements
  at::ScalarType dtype;
  int64_t offset;  ///< of its elements among the sums, row by row
};

/// Code for one pass of the CPU tile kernels, with all that it points to, but for captured tensors
/// that are read as they lie: who runs it holds these.
class TileCode {
 public:
  enum class Pass { kForward, kBackward };

  /// In the backward pass with the score's derivatives by the scaled score and by those captured
  /// tensors that require a gradient. REQUIRES: why_no_tile_code(options) is "".
  TileCode(const TileCodeOptions& options, Pass pass);
  TileCode(const TileCode&) = delete;
  TileCode& operator=(const TileCode&) = delete;

  const cpu::Program& program() const { return program_; }
  const std::vector<CapturedGradient>& captured() const { return captured_; }
  int64_t gradient_size() const;  ///< elements of all of them

 private:
  void add_reads(const Expression& score, TileCodeBuilder& builder, std::vector<int>& roots);

  SharedCode shared_;
  std::vector<cpu::Instruction> mask_, score_;
  std::vector<cpu::Read> reads_;
  std::vector<CapturedGradient> captured_;
  cpu::Program program_;
};

/// The code, remembered as long as neither the expressions nor what their tensors hold changes.
/// REQUIRES as the constructor. Safe to call from several threads.
std::shared_ptr<const TileCode> tile_code(const TileCodeOptions& options, TileCode::Pass pass);

/// The captured tensors that require a gradient and that the score's value depends on, each once.
std::vector<at::Tensor> differentiable_tensors(const Expression& score);

}  // namespace nanoflex::flex
