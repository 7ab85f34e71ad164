// The benches of a forward pass, of six masks, and of the labs, on sizes that take no time.
#include <gtest/gtest.h>

#include <map>
#include <stdexcept>

#include "evidence/forward_bench.h"
#include "evidence/guide_bench.h"
#include "evidence/lab_bench.h"
#include "evidence/passes.h"
#include "tests/evidence/bench_rows.h"
#include "trainer/memory.h"

namespace nanoflex {
namespace {

ForwardOptions one_layer(int64_t batch, int64_t length, int64_t vocabulary) {
  ForwardOptions options{.batch = batch, .repeat = 1};
  options.model = {.n_layer = 1,
                   .n_head = 2,
                   .n_kv_head = 1,
                   .n_embd = 32,
                   .sequence_len = length,
                   .vocab_size = vocabulary};
  return options;
}

TEST(ForwardBench, MeasuresEachBackendBesideThePublishedFigures) {
  track_cpu_memory();
  const auto bench = bench_forward(one_layer(1, 32, 128));
  expect_complete(bench);
  EXPECT_EQ(values_of(bench, "backend"), (std::set<std::string>{"sdpa", "flash", "flex"}));
  for (const auto& row : bench.at("rows")) {
    // The weights count: embedding, head and one layer in fp32.
    EXPECT_TRUE(row.at("peak_bytes").get<int64_t>() > (2 * 128 * 32 + 11 * 32 * 32) * 4);
    EXPECT_NEAR(row.at("tokens_per_second").get<double>() * row.at("median_ms").get<double>(), 32e3,
                1e-3);
  }
  EXPECT_TRUE(marks_published(forward_markdown(bench), "928928"));
  EXPECT_EQ(count_of(forward_chart(bench), "<rect class='bar'"), 3U);
}

TEST(ForwardBench, LogitsAreHeldOnce) {
  track_cpu_memory();
  const auto bench = bench_forward(one_layer(4, 256, 16384));
  expect_complete(bench);
  constexpr int64_t kLogitBytes = int64_t{4} * 256 * 16384 * 4;
  for (const auto& row : bench.at("rows")) {
    EXPECT_LT(row.at("peak_bytes").get<int64_t>(), kLogitBytes * 3 / 2) << row;
  }
}

GuideOptions small_guide() {
  return {.batch = 1,
          .length = 70,
          .heads = 2,
          .width = 32,
          .window = 8,
          .block = 16,
          .document = 20,
          .repeat = 1};
}

TEST(GuideBench, MeasuresSixMasksOrSaysWhyNot) {
  track_cpu_memory();
  const auto bench = bench_guide(small_guide());
  expect_complete(bench);
  EXPECT_EQ(bench.at("rows").size(), 18U);
  EXPECT_EQ(values_of(bench, "case").size(), 6U);
  std::map<std::string, double> share;
  for (const auto& row : bench.at("rows")) {
    const auto mask = row.at("case").get<std::string>();
    const bool band = mask == "causal" || mask == "full" || mask == "sliding window";
    EXPECT_EQ(row.contains("skipped"), row.at("backend") == "flash" && !band) << row;
    if (!row.contains("skipped")) share[mask] = row.at("visible_share").get<double>();
  }
  EXPECT_EQ(share.at("full"), 1);
  EXPECT_NEAR(share.at("causal"), 71.0 / 140, 1e-12);
  for (const char* mask : {"sliding window", "block-sparse", "document", "custom"}) {
    EXPECT_TRUE(share.at(mask) < share.at("causal")) << mask;
  }
  const std::string page = guide_markdown(bench);
  EXPECT_NE(page.find("- document, flash: mask 'causal & document' is not a band"),
            std::string::npos)
      << page;
  EXPECT_TRUE(marks_published(page, "18.63"));
  EXPECT_EQ(count_of(guide_chart(bench), "<rect class='bar'"), 15U);
}

// A tensor of all pairs would be larger than any machine's memory: nothing of it may be tried.
TEST(GuideBench, PlainTensorsThatWouldNotFitAreNotTried) {
  const PassTensors x = {at::zeros({1, 1, 1, 1}).expand({1, 1, 1 << 24, 16}),
                         at::zeros({1, 1, 1, 1}).expand({1, 1, 1 << 24, 16}),
                         at::zeros({1, 1, 1, 1}).expand({1, 1, 1 << 24, 16}),
                         {}};
  const std::string reason = why_skipped({"vanilla", "vanilla", {.mask = flex::causal()}}, x);
  EXPECT_EQ(reason.find("does not fit: needs about 9007199 GB, "), 0U) << reason;
  EXPECT_EQ(why_skipped({"flash", "flash", {.mask = flex::causal()}}, x), "");
}

LabOptions small_lab() {
  return {.batch = 1,
          .heads = 2,
          .seq_len = 130,
          .head_dim = 16,
          .block_size = 32,
          .doc_span = 40,
          .repeat = 1};
}

TEST(LabBench, ComparesAndMeasuresBothLabs) {
  const auto bench = bench_lab(small_lab());
  expect_complete(bench);
  ASSERT_EQ(bench.at("rows").size(), 6U);
  EXPECT_EQ(bench.at("pairs_bytes"), 2 * 130 * 130 * 4);
  int64_t eager = 0;
  for (const auto& row : bench.at("rows")) {
    if (row.at("backend") == "vanilla") {
      eager = row.value("operations", 0);
      EXPECT_FALSE(eager > 0 && row.at("queries_by_keys_tensor").is_null()) << row;
      continue;
    }
    EXPECT_TRUE(row.at("allclose").get<bool>()) << row;
    EXPECT_TRUE(row.at("mean_difference").get<double>() <= row.at("max_difference").get<double>());
    EXPECT_TRUE(row.value("operations", 0) < eager || eager == 0) << row;
    EXPECT_TRUE(row.value("queries_by_keys_tensor", nlohmann::ordered_json()).is_null()) << row;
  }
  const std::string page = lab_markdown(bench);
  EXPECT_NE(page.find("documents of 40, alibi, blocks of 32"), std::string::npos) << page;
  EXPECT_NE(page.find("the GPU part is skipped: "), std::string::npos) << page;
  EXPECT_EQ(count_of(lab_chart(bench), "<rect class='bar'"), 6U);
}

TEST(LabBench, RefusesWhatCannotBe) {
  const auto refused = [](LabOptions options) -> std::string {
    try {
      bench_lab(options);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "";
  };
  LabOptions no_heads = small_lab(), odd_blocks = small_lab();
  no_heads.heads = 0, odd_blocks.block_size = 20;
  EXPECT_EQ(refused(no_heads), "[bench] --heads must be at least 1, is 0");
  EXPECT_EQ(refused(odd_blocks), "[bench] --block-size must be a multiple of 16, is 20");
}

}  // namespace
}  // namespace nanoflex
