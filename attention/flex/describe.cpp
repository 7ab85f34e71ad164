// A block mask as a picture in plain text.
#include <ATen/ceil_div.h>

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "attention/flex/block_mask.h"

namespace nanoflex::flex {
namespace {

// A letter is about twice as high as wide, so a square picture has half as many lines.
constexpr int64_t kMostColumns = 64, kMostLines = 32;

// kinds: blocks of one batch and head. Cut, unless all are of one kind.
char letter_of(const at::Tensor& kinds) {
  const auto first = kinds[0][0].item<uint8_t>();
  const bool alike = kinds.eq(first).all().item<bool>();
  if (!alike || first == static_cast<uint8_t>(BlockKind::kPartial)) return '+';
  return first == static_cast<uint8_t>(BlockKind::kFull) ? '#' : '.';
}

}  // namespace

std::string describe(const BlockMask& mask) {
  const int64_t wide = at::ceil_div(mask.key_blocks, kMostColumns),
                high = at::ceil_div(mask.query_blocks, kMostLines);
  std::ostringstream text;
  for (int64_t row = 0; row < mask.query_blocks; row += high) {
    const at::Tensor line = mask.kinds[0][0].slice(0, row, std::min(row + high, mask.query_blocks));
    for (int64_t column = 0; column < mask.key_blocks; column += wide) {
      text << letter_of(line.slice(1, column, std::min(column + wide, mask.key_blocks)));
    }
    text << '\n';
  }
  const int64_t cut = mask.partial_keys.blocks.numel(), full = mask.full_keys.blocks.numel();
  text << "'#' full, '+' cut, '.' empty";
  if (wide > 1 || high > 1) text << "; a letter is " << high << " x " << wide << " blocks";
  if (mask.batches * mask.heads > 1) {
    text << "; the first of " << mask.batches << " batches and " << mask.heads << " heads";
  }
  char percent[32];
  std::snprintf(percent, sizeof percent, "%.1f", 100 * mask.sparsity());
  text << '\n'
       << mask.T << " queries x " << mask.S << " keys in blocks of " << mask.block_size << ": "
       << full << " full, " << cut << " cut, " << mask.kinds.numel() - full - cut
       << " empty; block sparsity " << percent << " %\n";
  return text.str();
}

}  // namespace nanoflex::flex
