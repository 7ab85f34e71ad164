#include "evidence/attention_sweep.h"

#include <gtest/gtest.h>

namespace nanoflex {
namespace {

nlohmann::ordered_json small_sweep() {
  const auto row = [](const char* backend, int64_t T, double ms) {
    return nlohmann::ordered_json{{"case", "B1 H1 T" + std::to_string(T) + " D64 causal"},
                                  {"B", 1},
                                  {"H", 1},
                                  {"T", T},
                                  {"D", 64},
                                  {"backend", backend},
                                  {"pass", "step"},
                                  {"device", "cpu"},
                                  {"dtype", "float32"},
                                  {"median_ms", ms},
                                  {"spread", 0.05},
                                  {"share_of_gemm", 0.5},
                                  {"ratios", {{"vanilla", 3.0}, {"sdpa", 2.0}}},
                                  {"peak_bytes", 1024}};
  };
  auto skipped = row("vanilla", 65536, 1);
  skipped["pass"] = "";
  skipped["skipped"] = "does not fit: needs about 137 GB, 20 GB are free";
  return {{"gemm_tflops", 0.1}, {"rows", {row("flash", 128, 0.5), row("flash", 256, 2), skipped}}};
}

TEST(AttentionSweep, CsvHasALineForEachRowAndSaysWhatDidNotFit) {
  const std::string csv = sweep_csv(small_sweep());
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 4);
  EXPECT_NE(
      csv.find("B1 H1 T128 D64 causal,1,1,128,64,float32,flash,step,0.5,0.05,0.5,3.0,2.0,1024,\n"),
      std::string::npos)
      << csv;
  EXPECT_NE(csv.find("\"does not fit: needs about 137 GB, 20 GB are free\"\n"), std::string::npos);
}

TEST(AttentionSweep, MarkdownShowsSpeedBesideBothPeers) {
  const std::string page = sweep_markdown(small_sweep());
  EXPECT_NE(
      page.find(
          "| B1 H1 T128 D64 causal | float32 | step | 0.500 | 0.50 | 2.00x | 3.00x | 5 % | 0.00 |"),
      std::string::npos)
      << page;
  EXPECT_NE(page.find("- B1 H1 T65536 D64 causal, vanilla: does not fit"), std::string::npos);
}

TEST(AttentionSweep, ChartsDrawEachPointAndNameTheUnits) {
  const auto charts = sweep_charts(small_sweep(), "float32");
  const std::map<std::string, std::string> units = {
      {"attention_float32.svg", "time, ms"},
      {"attention_speed_up_float32.svg", "times faster than vanilla"},
      {"attention_memory_float32.svg", "peak beyond inputs, MB"}};
  ASSERT_EQ(charts.size(), units.size());
  for (const auto& [name, unit] : units) {
    const std::string& svg = charts.at(name);
    EXPECT_NE(svg.find("sequence length, tokens"), std::string::npos);
    EXPECT_NE(svg.find(unit), std::string::npos);
    size_t points = 0;
    for (size_t at = svg.find("<circle"); at != std::string::npos;
         at = svg.find("<circle", at + 1)) {
      ++points;
    }
    EXPECT_EQ(points, 2U) << name;
    EXPECT_EQ(svg.find("nan"), std::string::npos);
  }
}

}  // namespace
}  // namespace nanoflex
