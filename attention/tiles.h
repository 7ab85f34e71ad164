#pragma once

#include <ATen/Functions.h>

#include <vector>

#include "attention/flex/evaluate.h"

namespace nanoflex {

constexpr int64_t kTile = 16;

/// A block of queries against a block of keys.
struct Tile {
  flex::Range rows, columns;
  at::Tensor hidden;  ///< where the mask forbids, broadcasting to [B, H, rows, columns]; undefined
                      ///< when it forbids nothing
};

/// The ranges 0 .. 16, 16 .. 32, ... of 0 .. length; the last may be shorter.
std::vector<flex::Range> tile_ranges(int64_t length);

/// The tiles of a strip (`options` names its rows or its columns) in which the mask allows any
/// pair. The mask is evaluated once for the strip, and its answer is read on the CPU once.
std::vector<Tile> visible_tiles(const flex::Expression& mask, const flex::EvaluateOptions& options);

}  // namespace nanoflex
