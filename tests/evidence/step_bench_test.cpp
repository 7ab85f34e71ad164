#include "evidence/step_bench.h"

#include <gtest/gtest.h>

#include "tests/evidence/bench_rows.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

ordered_json row_of(const std::string& what, int64_t T, double tokens_per_second) {
  return {{"case", what},
          {"backend", "flash"},
          {"median_ms", 10.0},
          {"spread", 0.1},
          {"repeats", 5},
          {"ratios", ordered_json::object()},
          {"tokens_per_second", tokens_per_second},
          {"tflops_per_second", 0.1},
          {"sequence_len", T},
          {"flops_per_token", 1000 + T},
          {"attention_flops_per_token", T},
          {"gemm_tflops", 0.4},
          {"share_of_gemm", 0.25},
          {"peak_bytes", 1000000},
          {"parts", {{"head", 0.004}, {"rest", 0.006}}}};
}

TEST(StepBench, HoldsWhatLengthCostsAgainstWhatItsFlopsExplain) {
  const ordered_json rows = {row_of("baseline", 256, 900), row_of("T 1000, 2000 tokens", 1000, 600),
                             row_of("T 2000, 2000 tokens", 2000, 450)};
  const std::string page = step_markdown({{"rows", rows}});
  // 1 + T / 2 a token issued, 1 + T counted, in thousands; the baseline has another batch.
  EXPECT_NE(page.find("|---|---|---:|---:|---:|\n| 1000 | flash | 1.00 | 1.00 | 1.00 |\n"
                      "| 2000 | flash | 1.33 | 1.33 | 1.50 |\n\n"),
            std::string::npos)
      << page;
  EXPECT_NE(page.find("| baseline | flash | 40.0 % | 60.0 % | 10 |"), std::string::npos) << page;
  EXPECT_EQ(step_markdown({{"rows", {row_of("baseline", 256, 900)}}}).find("FLOPs issued"),
            std::string::npos);
}

}  // namespace
}  // namespace nanoflex
