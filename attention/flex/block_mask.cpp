#include "attention/flex/block_mask.h"

#include <ATen/ceil_div.h>

#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>

#include "attention/flex/mask_judge.h"
#include "attention/flex/remembered.h"

namespace nanoflex::flex {
namespace {

constexpr int64_t kMostBlocks = std::numeric_limits<int32_t>::max();

[[noreturn]] void reject_blocks(const std::string& what) {
  throw std::invalid_argument("[block mask] " + what);
}

BlockMaskOptions checked(const BlockMaskOptions& options) {
  const auto [B, H, T, S, block_size] = options;
  if (std::min({B, H, T, S}) < 1) {
    reject_blocks(
        c10::str("B, H, T and S must be at least 1, are ", B, ", ", H, ", ", T, " and ", S));
  }
  if (block_size < 16 || block_size % 16 != 0) {
    reject_blocks(c10::str("block_size must be a positive multiple of 16, is ", block_size));
  }
  return options;
}

// Fills the kinds of one batch and head after the other.
class Builder {
 public:
  Builder(const Expression& mask, const BlockMaskOptions& options)
      : options_(checked(options)),
        judge_(mask, options_),
        query_blocks_(at::ceil_div(options.T, options.block_size)),
        key_blocks_(at::ceil_div(options.S, options.block_size)) {
    const double blocks = static_cast<double>(judge_.batches()) *
                          static_cast<double>(judge_.heads()) * static_cast<double>(query_blocks_) *
                          static_cast<double>(key_blocks_);
    if (blocks > kMostBlocks) {
      reject_blocks(c10::str("there would be ", blocks, " blocks, at most ", kMostBlocks,
                             "; use larger blocks than ", options.block_size));
    }
    kinds_ = at::empty({judge_.batches(), judge_.heads(), query_blocks_, key_blocks_}, at::kByte);
  }

  BlockMask build() {
    kinds_of_head_ = kinds_.data_ptr<uint8_t>();
    for (int64_t b = 0; b < judge_.batches(); ++b) {
      for (int64_t h = 0; h < judge_.heads(); ++h) {
        fill({b, h, {0, query_blocks_}, {0, key_blocks_}});
        kinds_of_head_ += query_blocks_ * key_blocks_;
      }
    }
    const at::Tensor by_keys = kinds_.transpose(2, 3).contiguous();
    return {.batches = judge_.batches(),
            .heads = judge_.heads(),
            .query_blocks = query_blocks_,
            .key_blocks = key_blocks_,
            .block_size = options_.block_size,
            .T = options_.T,
            .S = options_.S,
            .kinds = kinds_,
            .partial_keys = lists(kinds_, BlockKind::kPartial),
            .full_keys = lists(kinds_, BlockKind::kFull),
            .partial_queries = lists(by_keys, BlockKind::kPartial),
            .full_queries = lists(by_keys, BlockKind::kFull),
            .boxes_judged = judge_.judged()};
  }

 private:
  // `blocks`: rows and keys in blocks.
  void fill(const Area& blocks) {
    const Area area = pairs_of(blocks);
    const Verdict verdict = judge_.judge(area);
    if (verdict != Verdict::kOpen) {
      set(blocks, verdict == Verdict::kVisible ? BlockKind::kFull : BlockKind::kEmpty);
    } else if (blocks.pairs() == 1) {
      set(blocks, kind_of(area));
    } else {
      for_quarters(blocks, [this](const Area& quarter) { fill(quarter); });
    }
  }

  Area pairs_of(const Area& blocks) const {
    const auto pairs = [&](Range range, int64_t end) {
      return Range{range.begin * options_.block_size,
                   std::min(range.end * options_.block_size, end)};
    };
    return {blocks.b, blocks.h, pairs(blocks.rows, options_.T), pairs(blocks.keys, options_.S)};
  }

  void set(const Area& blocks, BlockKind kind) {
    for (int64_t row = blocks.rows.begin; row < blocks.rows.end; ++row) {
      uint8_t* first = kinds_of_head_ + row * key_blocks_;
      std::fill(first + blocks.keys.begin, first + blocks.keys.end, static_cast<uint8_t>(kind));
    }
  }

  struct Seen {
    bool visible = false, hidden = false;
    bool both() const { return visible && hidden; }
    void add(Verdict verdict) {
      visible |= verdict == Verdict::kVisible;
      hidden |= verdict == Verdict::kHidden;
    }
  };

  // Of a block that stays open: most are cut, and show it at a corner or in the middle.
  BlockKind kind_of(const Area& block) {
    const int64_t row = block.rows.begin, last_row = block.rows.end - 1;
    const int64_t key = block.keys.begin, last_key = block.keys.end - 1;
    const std::array<std::pair<int64_t, int64_t>, 5> samples = {
        {{last_row, key},
         {row, last_key},
         {row, key},
         {last_row, last_key},
         {(row + last_row) / 2, (key + last_key) / 2}}};
    Seen seen;
    for (const auto& [r, k] : samples) {
      if (!seen.both()) seen.add(judge_.judge({block.b, block.h, {r, r + 1}, {k, k + 1}}));
    }
    search(block, seen);
    return seen.both() ? BlockKind::kPartial : seen.visible ? BlockKind::kFull : BlockKind::kEmpty;
  }

  void search(const Area& area, Seen& seen) {
    for_quarters(area, [&](const Area& quarter) {
      if (seen.both()) return;
      const Verdict verdict = judge_.judge(quarter);
      seen.add(verdict);
      if (verdict == Verdict::kOpen) search(quarter, seen);
    });
  }

  // kinds: [batches, heads, rows, columns], contiguous.
  static BlockLists lists(const at::Tensor& kinds, BlockKind kind) {
    const int64_t columns = kinds.size(3), rows = kinds.numel() / columns;
    const auto* values = kinds.data_ptr<uint8_t>();
    const auto wanted = static_cast<uint8_t>(kind);
    const int64_t count = std::count(values, values + kinds.numel(), wanted);
    BlockLists result = {at::empty({rows + 1}, at::kInt), at::empty({count}, at::kInt)};
    auto *offsets = result.offsets.data_ptr<int32_t>(), *blocks = result.blocks.data_ptr<int32_t>();
    int32_t found = 0;
    for (int64_t row = 0; row < rows; ++row) {
      offsets[row] = found;
      for (int64_t column = 0; column < columns; ++column) {
        if (values[row * columns + column] == wanted) {
          blocks[found++] = static_cast<int32_t>(column);
        }
      }
    }
    offsets[rows] = found;
    return result;
  }

  const BlockMaskOptions options_;
  MaskJudge judge_;
  const int64_t query_blocks_, key_blocks_;
  at::Tensor kinds_;
  uint8_t* kinds_of_head_ = nullptr;
};

// In an area that is open. Where all quarters are too, so will theirs be, as a rule.
int64_t count_visible(MaskJudge& judge, const Area& area) {
  constexpr int64_t kFewest = 256, kMost = 128 * 128;  // pairs worth evaluating at once
  int64_t count = 0;
  std::vector<Area> open;
  for_quarters(area, [&](const Area& quarter) {
    const Verdict verdict = judge.judge(quarter);
    if (verdict == Verdict::kVisible) count += quarter.pairs();
    if (verdict == Verdict::kOpen) open.push_back(quarter);
  });
  if (open.size() == 4 && area.pairs() >= kFewest && area.pairs() <= kMost) {
    return judge.count(area);
  }
  for (const Area& quarter : open) count += count_visible(judge, quarter);
  return count;
}

int64_t count_visible(MaskJudge& judge, const BlockMaskOptions& options, int64_t b, int64_t h) {
  const Area whole = {b, h, {0, options.T}, {0, options.S}};
  const Verdict verdict = judge.judge(whole);
  if (verdict == Verdict::kOpen) return count_visible(judge, whole);
  return verdict == Verdict::kVisible ? whole.pairs() : 0;
}

}  // namespace

double BlockMask::sparsity() const {
  const int64_t visited = partial_keys.blocks.numel() + full_keys.blocks.numel();
  return 1 - static_cast<double>(visited) / static_cast<double>(kinds.numel());
}

BlockMask make_block_mask(const Expression& mask, const BlockMaskOptions& options) {
  return Builder(mask, options).build();
}

std::shared_ptr<const BlockMask> block_mask(const Expression& mask,
                                            const BlockMaskOptions& options) {
  static Remembered<BlockMask> masks;
  return masks.get({mask}, {options.B, options.H, options.T, options.S, options.block_size}, [&] {
    return std::make_shared<const BlockMask>(make_block_mask(mask, options));
  });
}

double visible_share(const Expression& mask, const BlockMaskOptions& options) {
  MaskJudge judge(mask, checked(options));
  double sum = 0;
  for (int64_t b = 0; b < judge.batches(); ++b) {
    for (int64_t h = 0; h < judge.heads(); ++h) {
      const int64_t count = count_visible(judge, options, b, h);
      sum += static_cast<double>(count) / static_cast<double>(options.T * options.S);
    }
  }
  return sum / static_cast<double>(judge.batches() * judge.heads());
}

}  // namespace nanoflex::flex
