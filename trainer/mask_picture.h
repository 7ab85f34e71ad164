#pragma once

#include <cstdint>

#include "attention/flex/block_mask.h"
#include "trainer/png.h"

namespace nanoflex {

struct PictureOptions {
  int64_t largest_side = 1024;  ///< in pixels
  int64_t most_pairs =
      int64_t{1} << 40;  ///< to evaluate; beyond, a pixel's first rows stand for it
};

/// One batch and head of a mask: queries downwards, keys to the right, a pixel a pair up to the
/// largest side, else a pixel a group of pairs. Full blocks are blue and empty ones pale; in cut
/// blocks, orange, what is seen is dark. REQUIRES: `blocks` is of this mask, with its tensors on
/// the CPU.
Picture draw_mask(const flex::Expression& mask, const flex::BlockMask& blocks,
                  const PictureOptions& options = {});

}  // namespace nanoflex
