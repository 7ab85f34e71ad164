#include "evidence/mask_bench.h"

#include <gtest/gtest.h>

#include <set>

#include "attention/flex/masks.h"
#include "tests/evidence/bench_rows.h"
#include "trainer/mask_picture.h"
#include "trainer/memory.h"

namespace nanoflex {
namespace {

std::string refused_mask(const MaskBenchOptions& options) {
  try {
    mask_of(options);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

TEST(MaskPicture, ShowsEachPairAndTheKindOfItsBlock) {
  const flex::Expression mask = flex::causal();
  const Picture picture =
      draw_mask(mask, flex::make_block_mask(mask, {.T = 40, .S = 48, .block_size = 16}));
  EXPECT_EQ(picture.width, 48);
  EXPECT_EQ(picture.height, 40);
  const auto colour = [&](int64_t row, int64_t key) {
    return picture.palette.at(picture.pixels.at(row * picture.width + key));
  };
  const Colour empty = colour(0, 47), full = colour(39, 0), seen = colour(0, 8),
               hidden = colour(0, 9);
  EXPECT_EQ(std::set<Colour>({empty, full, seen, hidden}).size(), 4U);
  EXPECT_EQ(colour(39, 47), seen);
  EXPECT_EQ(colour(38, 47), hidden);
  EXPECT_EQ(colour(8, 0), seen);
}

TEST(MaskPicture, ShowsGroupsOfPairsWhereThereAreManyAndTheirShare) {
  const flex::Expression mask =
      flex::trace_mask([](auto, auto, auto q, auto kv) { return (q - kv) % 2 == 0; });
  const Picture picture = draw_mask(mask, flex::make_block_mask(mask, {.T = 100, .S = 2047}));
  EXPECT_EQ(picture.width, 1024);
  EXPECT_EQ(picture.height, 50);
  EXPECT_EQ(std::set<uint8_t>(picture.pixels.begin(), picture.pixels.begin() + 1023).size(), 1U);
}

// The checksums are those of zlib.
TEST(Png, IsAFileThatOthersCanRead) {
  const std::string bytes =
      png({.width = 2, .height = 1, .palette = {{255, 0, 0}, {0, 0, 255}}, .pixels = {0, 1}});
  const auto holds = [&](const std::string& part) { return bytes.find(part) != std::string::npos; };
  EXPECT_EQ(bytes.substr(0, 8), "\x89PNG\r\n\x1a\n");
  EXPECT_TRUE(holds({"IHDR\0\0\0\x02\0\0\0\x01\x08\x03\0\0\0\xc3\xfc\x8f\xb8", 21}));
  EXPECT_TRUE(holds({"\0\0\0\x06PLTE\xff\0\0\0\0\xff", 14}));
  EXPECT_TRUE(holds({"IDAT\x78\x01\x01\x03\0\xfc\xff\0\0\x01\0\x04\0\x02\x0b\x21\x8b\x71", 22}));
  EXPECT_EQ(bytes.substr(bytes.size() - 8), "IEND\xae\x42\x60\x82");
  EXPECT_THROW(png({.width = 2, .height = 2, .palette = {{}}, .pixels = {0}}), std::logic_error);
}

TEST(MaskBench, RecordHasTheKeysThatEveryBenchHas) {
  const MaskBenchOptions options = {.length = 300, .block_size = 16, .documents = 40, .repeat = 1};
  track_cpu_memory();
  const auto record = bench_mask(options);
  for (const char* key : {"machine", "gemm_tflops", "rows"}) EXPECT_TRUE(record.contains(key));
  const auto& row = record.at("rows").at(0);
  for (const char* key : {"case", "backend", "pass", "device", "dtype", "median_ms", "spread",
                          "share_of_gemm", "ratios", "peak_bytes"}) {
    EXPECT_TRUE(row.contains(key)) << key;
  }
  EXPECT_EQ(row.at("mask"), "causal & document");
  EXPECT_EQ(row.at("pass"), "build");
  EXPECT_GT(row.at("median_ms").get<double>(), 0);
  const std::string report = mask_report(options, record);
  EXPECT_NE(report.find("% of the pairs are visible\nbuilt in "), std::string::npos) << report;
}

TEST(MaskBench, DrawsRunsOfBlocksOfOneKind) {
  const std::string picture = mask_chart({.length = 48, .block_size = 16});
  EXPECT_EQ(count_of(picture, "<rect class='cut'"), 3U);   // the diagonal's
  EXPECT_EQ(count_of(picture, "<rect class='full'"), 2U);  // of one block, and of two
  EXPECT_NE(picture.find("<rect class='full' x='70' y='296' width='256' height='128'"),
            std::string::npos)
      << picture;
  EXPECT_NE(picture.find("key position kv, tokens"), std::string::npos);
  // 65 blocks are 33 cells of 2 x 2: those at the diagonal are cut, of which the last is one block.
  const std::string groups = mask_chart({.length = 1040, .block_size = 16});
  EXPECT_EQ(count_of(groups, "<rect class='cut'"), 33U);
  EXPECT_EQ(count_of(groups, "<rect class='full'"), 32U);
}

TEST(MaskBench, PacksDocumentsAroundTheirMeanLength) {
  const flex::BlockMaskOptions shape = {.T = 4096, .S = 4096};
  const double share =
      flex::visible_share(mask_of({.mask = "document", .length = 4096, .documents = 256}), shape);
  EXPECT_TRUE(share * 4096 >= 256 && share * 4096 <= 320) << share * 4096;
}

TEST(MaskBench, SaysWhatItCannotMeasure) {
  EXPECT_EQ(refused_mask({.length = 0}), "[bench] --length must be at least 1, is 0");
  EXPECT_EQ(refused_mask({.documents = -1}), "[bench] --documents must be at least 0, is -1");
  EXPECT_EQ(refused_mask({.mask = "document"}),
            "[bench] the mask reads the tensor 'document'; only 'document' can be made, by "
            "--documents SPAN");
  EXPECT_THROW(mask_png({.length = 65537}), std::invalid_argument);
}

}  // namespace
}  // namespace nanoflex
