// What the programs of cases.h must give: computed by LibTorch, told in plain numbers, because the
// tests that run kernels do not include LibTorch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/simt/reference.h"

namespace nanoflex::simt {

/// A program's text and what it is run with.
struct FlexData {
  std::string name, text;
  std::vector<int32_t> words;
  std::vector<std::vector<int32_t>> tensors;  ///< by their bits
};

/// A case's values at all pairs [B, H, T, S].
struct FlexPairs {
  int B, H, T, S;
  FlexData data;
  std::vector<float> s = {};                ///< scaled scores
  std::vector<int> mask = {};               ///< empty: none
  Numbers score = {}, derivative = {};      ///< in fp64; empty: none
  Numbers score32 = {}, derivative32 = {};  ///< in fp32
};
FlexPairs flex_pairs(size_t index, int variant);

/// A case inside attention.
struct FlexAttention {
  Problem problem;
  FlexData data;
  Inputs inputs = {};
  Results truth = {}, plain = {};
  int block_size = 0;
  std::vector<unsigned char> kinds = {};  ///< [batches, heads, query blocks, key blocks], or none
  int batches = 0, heads = 0, query_blocks = 0, key_blocks = 0;
};

enum class Floats { kBFloat16, kFloat };

/// The case called `name`, for the problem's sizes. Of the problem, `right` may be 0: then the
/// band's mask is causal beside the program's.
FlexAttention flex_attention(const std::string& name, const Problem& problem, Floats floats);

}  // namespace nanoflex::simt
