#pragma once

#include <cstdint>

#include "attention/flex/block_mask.h"
#include "trainer/png.h"

namespace nanoflex {

/// What the pixels of a mask's picture are: blocks that are not seen, and seen whole; pairs of
/// blocks that are cut, hidden and seen.
namespace mask_colours {
inline constexpr Colour kEmpty = {244, 243, 239}, kFull = {38, 84, 134};
inline constexpr Colour kCutHidden = {252, 224, 190}, kCutVisible = {206, 96, 12};
}  // namespace mask_colours

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
