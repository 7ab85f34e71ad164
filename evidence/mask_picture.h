#pragma once

#include <cstdint>

#include "attention/flex/block_mask.h"
#include "evidence/png.h"

namespace nanoflex {

/// One batch and head of a mask: queries downwards, keys to the right, a pixel a pair up to 1024,
/// else a pixel a group of pairs. Full blocks are blue and empty ones pale; in cut blocks, orange,
/// what is seen is dark. REQUIRES: `blocks` is of this mask, with its tensors on the CPU.
Picture draw_mask(const flex::Expression& mask, const flex::BlockMask& blocks);

}  // namespace nanoflex
