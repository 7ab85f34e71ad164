// The masks and scores whose CUDA source the emulator runs. Their programs are printed when the
// tests are built (generate.cpp), and filled with arguments when they run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attention/flex/expression.h"

namespace nanoflex::simt {

struct FlexSizes {
  int64_t B, H, T, S;  ///< T <= S
};

struct FlexCase {
  std::string name;                        ///< also of the namespace of its program
  flex::Expression mask = {}, score = {};  ///< undefined: none
};

constexpr FlexSizes kFlexSizes = {2, 3, 21, 34};  ///< at which random cases have one text

/// Every named mask and score, some that stand for what people write, and random ones. `variant`
/// changes constants and captured tensors, which must not change the programs.
std::vector<FlexCase> flex_cases(const FlexSizes& sizes, int variant);

}  // namespace nanoflex::simt
