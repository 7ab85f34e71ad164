#include "attention/tiles.h"

#include <algorithm>

namespace nanoflex {
namespace {

// A dimension on which the mask does not depend keeps size 1.
at::Tensor slice(const at::Tensor& x, int64_t dimension, flex::Range range, int64_t begin) {
  return x.size(dimension) == 1 ? x : x.slice(dimension, range.begin - begin, range.end - begin);
}

std::vector<flex::Range> split(flex::Range whole) {
  std::vector<flex::Range> ranges;
  for (int64_t begin = whole.begin; begin < whole.end; begin += kTile) {
    ranges.push_back({begin, std::min(begin + kTile, whole.end)});
  }
  return ranges;
}

enum class Sight { kNothing, kSome, kEverything };

// any, all: [rows, columns] of the strip, over batch and heads, on the CPU.
Sight sight(const Tile& tile, const at::TensorAccessor<bool, 2>& any,
            const at::TensorAccessor<bool, 2>& all, int64_t first_row, int64_t first_column) {
  bool some = false, everything = true;
  for (int64_t row = tile.rows.begin - first_row; row < tile.rows.end - first_row; ++row) {
    const int64_t end = tile.columns.end - first_column;
    for (int64_t column = tile.columns.begin - first_column; column < end; ++column) {
      some |= any[row][column];
      everything &= all[row][column];
    }
  }
  return !some ? Sight::kNothing : everything ? Sight::kEverything : Sight::kSome;
}

}  // namespace

std::vector<flex::Range> tile_ranges(int64_t length) { return split({0, length}); }

std::vector<Tile> visible_tiles(const flex::Expression& mask,
                                const flex::EvaluateOptions& options) {
  const flex::Range rows = options.rows.value_or(flex::Range{0, options.T});
  const flex::Range columns = options.columns.value_or(flex::Range{0, options.S});
  const at::Tensor allowed = flex::evaluate(mask, options);
  const at::Tensor hidden = allowed.logical_not();
  const auto reduced = [&](const at::Tensor& over_heads) {
    return over_heads.to(at::kCPU).expand({rows.size(), columns.size()});
  };
  const at::Tensor any = reduced(allowed.flatten(0, 1).any(0));
  const at::Tensor all = reduced(allowed.flatten(0, 1).all(0));

  std::vector<Tile> tiles;
  for (const flex::Range tile_rows : split(rows)) {
    for (const flex::Range tile_columns : split(columns)) {
      Tile tile{.rows = tile_rows, .columns = tile_columns, .hidden = {}};
      const Sight seen =
          sight(tile, any.accessor<bool, 2>(), all.accessor<bool, 2>(), rows.begin, columns.begin);
      if (seen == Sight::kNothing) continue;
      if (seen == Sight::kSome) {
        tile.hidden =
            slice(slice(hidden, 2, tile_rows, rows.begin), 3, tile_columns, columns.begin);
      }
      tiles.push_back(tile);
    }
  }
  return tiles;
}

}  // namespace nanoflex
