#include "evidence/mask_bench.h"

#include <algorithm>
#include <cstdio>
#include <random>
#include <sstream>
#include <stdexcept>

#include "attention/flex/parse.h"
#include "evidence/measure.h"
#include "evidence/svg.h"
#include "trainer/machine.h"
#include "trainer/mask_picture.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kLongestPicture = 65536;

[[noreturn]] void reject(const std::string& what) {
  throw std::invalid_argument("[bench] " + what);
}

// [1, length]: the number of the document at each position.
at::Tensor packed_documents(int64_t length, int64_t mean) {
  std::mt19937_64 random(1);
  const at::Tensor documents = at::empty({1, length}, at::kLong);
  auto* number = documents.data_ptr<int64_t>();
  int64_t document = 0, left = 0;
  for (int64_t i = 0; i < length; ++i, --left) {
    if (left == 0) {
      left = mean / 2 + static_cast<int64_t>(random() % (mean + 1));
      left = std::max<int64_t>(left, 1);
      ++document;
    }
    number[i] = document - 1;
  }
  return documents;
}

flex::BlockMaskOptions block_options(const MaskBenchOptions& options) {
  return {.T = options.length, .S = options.length, .block_size = options.block_size};
}

constexpr double kPictureLeft = 70, kPictureTop = 40, kPictureSide = 384;  // in SVG's units

// [lines, columns] of BlockKind: the first batch and head in cells of `group` x `group` blocks.
at::Tensor cells_of(const flex::BlockMask& blocks, int64_t group) {
  const at::Tensor kinds = blocks.kinds[0][0].to(at::kFloat).unsqueeze(0);
  const auto most = at::max_pool2d(kinds, group, group, 0, 1, /*ceil_mode=*/true)[0];
  const auto least = -at::max_pool2d(-kinds, group, group, 0, 1, /*ceil_mode=*/true)[0];
  const auto cut = static_cast<double>(flex::BlockKind::kPartial);
  return at::where(most == least, most, cut).to(at::kByte).contiguous();
}

// A rectangle for each run of cells of one kind in a line; the last may be cut by the end.
void draw_cells(std::ostringstream& svg, const at::Tensor& cells, double cell) {
  const int64_t lines = cells.size(0), columns = cells.size(1);
  const auto place = [&](int64_t i) {
    return std::min(kPictureSide, cell * static_cast<double>(i));
  };
  for (int64_t y = 0; y < lines; ++y) {
    const auto* kinds = cells.const_data_ptr<uint8_t>() + y * columns;
    for (int64_t begin = 0, end = 0; begin < columns; begin = end) {
      while (end < columns && kinds[end] == kinds[begin]) ++end;
      const auto kind = static_cast<flex::BlockKind>(kinds[begin]);
      if (kind == flex::BlockKind::kEmpty) continue;
      const bool full = kind == flex::BlockKind::kFull;
      svg << "<rect class='" << (full ? "full" : "cut") << "' x='" << kPictureLeft + place(begin)
          << "' y='" << kPictureTop + place(y) << "' width='" << place(end) - place(begin)
          << "' height='" << place(y + 1) - place(y) << "' fill='" << series_colour(full ? 0 : 1)
          << "'/>\n";
    }
  }
}

// Quarters of both axes, in positions.
void draw_axes(std::ostringstream& svg, double right, double bottom, int64_t length) {
  for (int64_t i = 0; i <= 4; ++i) {
    const double share = static_cast<double>(i) / 4;
    const std::string position = plain_number(static_cast<double>(length * i / 4));
    svg << "<text x='" << kPictureLeft + share * (right - kPictureLeft) << "' y='" << bottom + 16
        << "' text-anchor='middle'>" << position << "</text><text x='" << kPictureLeft - 6
        << "' y='" << kPictureTop + share * (bottom - kPictureTop) + 4 << "' text-anchor='end'>"
        << position << "</text>\n";
  }
  svg << "<rect class='grid' x='" << kPictureLeft << "' y='" << kPictureTop << "' width='"
      << right - kPictureLeft << "' height='" << bottom - kPictureTop << "' fill='none'/>\n"
      << "<text x='" << (kPictureLeft + right) / 2 << "' y='" << bottom + 36
      << "' text-anchor='middle'>key position kv, tokens</text>\n<text transform='translate(16,"
      << (kPictureTop + bottom) / 2
      << ") rotate(-90)' text-anchor='middle'>query position q, tokens</text>\n";
}

}  // namespace

flex::Expression mask_of(const MaskBenchOptions& options) {
  if (options.length < 1) reject(c10::str("--length must be at least 1, is ", options.length));
  if (options.documents < 0) {
    reject(c10::str("--documents must be at least 0, is ", options.documents));
  }
  const bool packed = options.documents > 0;
  const std::string text = !options.mask.empty() ? options.mask
                           : packed              ? "causal & document"
                                                 : "causal";
  flex::Expression mask = flex::parse_mask(text);
  if (packed) {
    mask = flex::bind(mask, {{"document", packed_documents(options.length, options.documents)}});
  }
  const std::vector<std::string> missing = flex::free_tensors(mask);
  if (!missing.empty()) {
    reject("the mask reads the tensor '" + missing[0] +
           "'; only 'document' can be made, by --documents SPAN");
  }
  return mask;
}

ordered_json bench_mask(const MaskBenchOptions& options) {
  const flex::Expression mask = mask_of(options);
  const flex::BlockMaskOptions shape = block_options(options);
  const flex::BlockMask blocks = flex::make_block_mask(mask, shape);
  const MeasureOptions how = {.repeat = options.repeat};
  const double yardstick = gemm_tflops(at::kFloat, how);
  const Measured measured =
      measure({{"build", [&] { flex::make_block_mask(mask, shape); }}}, how)[0];
  const int64_t full = blocks.full_keys.blocks.numel(), cut = blocks.partial_keys.blocks.numel();
  const std::string text = flex::to_text(mask);
  const ordered_json row = {{"case", c10::str("T", options.length, " ", text)},
                            {"mask", text},
                            {"T", options.length},
                            {"S", options.length},
                            {"block_size", options.block_size},
                            {"backend", "flex"},
                            {"pass", "build"},
                            {"device", "cpu"},
                            {"dtype", "bool"},
                            {"median_ms", measured.median_ms},
                            {"spread", measured.spread},
                            {"share_of_gemm", nullptr},
                            {"ratios", ordered_json::object()},
                            {"peak_bytes", measured.peak_bytes},
                            {"full", full},
                            {"cut", cut},
                            {"empty", blocks.kinds.numel() - full - cut},
                            {"sparsity", blocks.sparsity()},
                            {"visible_share", flex::visible_share(mask, shape)},
                            {"boxes_judged", blocks.boxes_judged}};
  return {{"machine", describe_environment(at::kCPU)},
          {"gemm_tflops", yardstick},
          {"rows", ordered_json::array({row})}};
}

std::string mask_report(const MaskBenchOptions& options, const ordered_json& record) {
  const ordered_json& row = record.at("rows").at(0);
  char line[200];
  std::snprintf(line, sizeof line,
                "%.1f %% of the pairs are visible\nbuilt in %.3f ms (median of %lld, spread %.0f "
                "%%), %lld boxes judged\n",
                100 * row.at("visible_share").get<double>(), row.at("median_ms").get<double>(),
                static_cast<long long>(options.repeat), 100 * row.at("spread").get<double>(),
                row.at("boxes_judged").get<long long>());
  return "```text\n" + row.at("mask").get<std::string>() + "\n" +
         flex::describe(flex::make_block_mask(mask_of(options), block_options(options))) + line +
         "```\n";
}

std::string mask_chart(const MaskBenchOptions& options) {
  constexpr int64_t kMostCells = 64;
  const flex::Expression mask = mask_of(options);
  const flex::BlockMask blocks = flex::make_block_mask(mask, block_options(options));
  const int64_t group = (blocks.key_blocks + kMostCells - 1) / kMostCells;
  const at::Tensor cells = cells_of(blocks, group);
  const double cell = kPictureSide * static_cast<double>(group * options.block_size) /
                      static_cast<double>(options.length);
  const double right = kPictureLeft + kPictureSide, bottom = kPictureTop + kPictureSide;
  std::ostringstream svg;
  svg << begin_svg(right + 90, bottom + 50, kPictureLeft, flex::to_text(mask));
  draw_cells(svg, cells, cell);
  draw_axes(svg, right, bottom, options.length);
  svg << legend_line(right + 14, kPictureTop, 0, "full")
      << legend_line(right + 14, kPictureTop + 18, 1, "cut") << "</svg>\n";
  return svg.str();
}

std::string mask_png(const MaskBenchOptions& options) {
  if (options.length > kLongestPicture) {
    reject(c10::str("--png draws lengths up to ", kLongestPicture, ", is ", options.length));
  }
  const flex::Expression mask = mask_of(options);
  return png(draw_mask(mask, flex::make_block_mask(mask, block_options(options))));
}

}  // namespace nanoflex
