// Which keys a query sees, and which tiles hold a pair that may attend: asked by the kernels, and
// by who hands out their work.
#pragma once

#include "attention/cpu/problem.h"
#include "attention/cpu/vectors.h"

namespace nanoflex::cpu {
namespace {

/// Keys [begin, end) that the query at row t of batch b may see. Neither moves back from row to
/// row.
struct KeyRange {
  int64_t begin, end;
};
inline KeyRange visible_keys(const Problem& p, int64_t b, int64_t t) {
  const int64_t position = t + p.S - p.T;
  int64_t begin = larger<int64_t>(0, position - p.left);
  int64_t end = smaller(p.S, position + p.right + 1);
  if (p.ranges.keys) {
    const int32_t* range = p.ranges.keys + b * p.ranges.batch + 2 * position;
    begin = larger<int64_t>(begin, range[0]), end = smaller<int64_t>(end, range[1]);
  }
  return {begin, larger(begin, end)};
}

/// Rows [begin, end) of a tile.
struct RowRange {
  int begin, end;
  friend bool operator==(const RowRange&, const RowRange&) = default;
  bool empty() const { return begin >= end; }
  /// From the last multiple of `unit` on.
  RowRange from_unit(int unit) const { return {begin / unit * unit, end}; }
};
/// From the first row of either to the last.
inline RowRange joined(RowRange a, RowRange b) {
  if (a.empty() || b.empty()) return a.empty() ? b : a;
  return {smaller(a.begin, b.begin), larger(a.end, b.end)};
}

/// Some queries of one head against some keys.
struct Tile {
  int64_t b, h;
  int64_t row, rows, key, keys;
};

enum class Sight : uint8_t { kNone, kSome, kAll };

/// What the blocks say about a tile; band and ranges are not asked.
inline Sight sight(const Blocks& blocks, const Tile& tile) {
  if (!blocks.kinds) return Sight::kAll;
  const uint8_t* kinds = blocks.kinds + tile.b * blocks.batch + tile.h * blocks.head;
  const int64_t last_row = (tile.row + tile.rows - 1) / blocks.size;
  const int64_t last_key = (tile.key + tile.keys - 1) / blocks.size;
  bool none = true, all = true;
  for (int64_t i = tile.row / blocks.size; i <= last_row; ++i) {
    for (int64_t j = tile.key / blocks.size; j <= last_key; ++j) {
      const uint8_t kind = kinds[i * blocks.row + j];
      none &= kind == 0;
      all &= kind == 2;
    }
  }
  return none ? Sight::kNone : all ? Sight::kAll : Sight::kSome;
}

/// Whether any pair of the tile may attend, as far as band, ranges and blocks tell.
inline bool sees_any(const Problem& p, const Tile& tile) {
  const int64_t begin = visible_keys(p, tile.b, tile.row).begin;
  const int64_t end = visible_keys(p, tile.b, tile.row + tile.rows - 1).end;
  return begin < tile.key + tile.keys && end > tile.key && begin < end &&
         sight(p.blocks, tile) != Sight::kNone;
}

/// The rows of a head in tiles of at most `most`, none of which lies in two blocks.
class QueryTiles {
 public:
  QueryTiles(const Problem& p, int64_t most)
      : T_(p.T),
        most_(most),
        block_(p.blocks.kinds ? p.blocks.size : most),
        per_block_((block_ + most - 1) / most) {}

  int64_t count() const {
    const int64_t rest = T_ % block_;
    return T_ / block_ * per_block_ + (rest + most_ - 1) / most_;
  }
  int64_t row(int64_t i) const { return i / per_block_ * block_ + i % per_block_ * most_; }
  int64_t rows(int64_t i) const {
    const int64_t begin = row(i), block_end = (i / per_block_ + 1) * block_;
    return smaller(begin + most_, smaller(block_end, T_)) - begin;
  }

 private:
  int64_t T_, most_, block_, per_block_;
};

/// The first unit of tile.keys keys, from `index` on, of which the tile's rows see something;
/// beyond the last when there is none. tile.key does not matter.
inline int64_t next_unit(const Problem& p, Tile tile, int64_t index) {
  const int64_t keys_per_unit = tile.keys;
  index = larger(index, visible_keys(p, tile.b, tile.row).begin / keys_per_unit);
  const int64_t end = visible_keys(p, tile.b, tile.row + tile.rows - 1).end;
  for (; index * keys_per_unit < end; ++index) {
    tile.key = index * keys_per_unit;
    tile.keys = smaller(keys_per_unit, p.S - tile.key);
    if (sees_any(p, tile)) return index;
  }
  return p.S / keys_per_unit + 1;
}

}  // namespace
}  // namespace nanoflex::cpu
