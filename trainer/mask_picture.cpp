#include "trainer/mask_picture.h"

#include <algorithm>
#include <cmath>

#include "attention/flex/evaluate.h"

namespace nanoflex {
namespace {

using namespace mask_colours;
constexpr int64_t kShades = 64;
constexpr uint8_t kEmptyIndex = 0, kFullIndex = 1, kFirstShade = 2;

std::vector<Colour> palette() {
  std::vector<Colour> colours = {kEmpty, kFull};
  for (int64_t shade = 0; shade < kShades; ++shade) {
    Colour colour = {};
    for (size_t i = 0; i < colour.size(); ++i) {
      const int64_t difference = int64_t{kCutVisible[i]} - kCutHidden[i];
      colour[i] = static_cast<uint8_t>(kCutHidden[i] + difference * shade / (kShades - 1));
    }
    colours.push_back(colour);
  }
  return colours;
}

// The visible share of each group of keys, over `count` rows from `row` on.
at::Tensor shares(const flex::Expression& mask, const flex::BlockMask& blocks, int64_t row,
                  int64_t count, int64_t group) {
  const flex::Range rows = {row, std::min(row + count, blocks.T)};
  const at::Tensor seen = flex::evaluate(mask, {.T = blocks.T, .S = blocks.S, .rows = rows})
                              .expand({1, 1, rows.size(), blocks.S})
                              .to(at::kFloat)
                              .mean(2);
  return at::avg_pool1d(seen[0], group, group, 0, /*ceil_mode=*/true).flatten().contiguous();
}

}  // namespace

Picture draw_mask(const flex::Expression& mask, const flex::BlockMask& blocks,
                  const PictureOptions& options) {
  const int64_t side = options.largest_side;
  const int64_t group = (std::max(blocks.T, blocks.S) + side - 1) / side;
  Picture picture = {.width = (blocks.S + group - 1) / group,
                     .height = (blocks.T + group - 1) / group,
                     .palette = palette()};
  const int64_t affordable = options.most_pairs / (picture.height * blocks.S);
  const int64_t rows = std::clamp<int64_t>(affordable, 1, group);
  picture.pixels.reserve(picture.width * picture.height);
  const auto* kinds = blocks.kinds.data_ptr<uint8_t>();
  for (int64_t y = 0; y < picture.height; ++y) {
    const at::Tensor line = shares(mask, blocks, y * group, rows, group);
    const auto* kinds_of_row = kinds + y * group / blocks.block_size * blocks.key_blocks;
    for (int64_t x = 0; x < picture.width; ++x) {
      const auto kind = static_cast<flex::BlockKind>(kinds_of_row[x * group / blocks.block_size]);
      const float share = line.data_ptr<float>()[x];
      const auto shade = static_cast<uint8_t>(kFirstShade + std::lround(share * (kShades - 1)));
      picture.pixels.push_back(kind == flex::BlockKind::kEmpty  ? kEmptyIndex
                               : kind == flex::BlockKind::kFull ? kFullIndex
                                                                : shade);
    }
  }
  return picture;
}

}  // namespace nanoflex
