#include "evidence/rows.h"

#include <gtest/gtest.h>

#include "evidence/bars.h"
#include "evidence/published.h"
#include "evidence/svg.h"
#include "tests/evidence/bench_rows.h"

namespace nanoflex {
namespace {

TEST(Rows, SaysWhenTheSpreadIsTooWideToSayWhichIsFaster) {
  const Measured own = summarise({10, 20, 30}), always_slower = summarise({12, 22, 33}),
                 sometimes = summarise({12, 19, 40});
  // Both hit by the same neighbour: what counts is who was faster at the time.
  EXPECT_EQ(ratio_text(times_faster(own, always_slower)), "1.10x");
  EXPECT_EQ(ratio_text(times_faster(always_slower, own)), "0.91x");
  EXPECT_EQ(ratio_text(times_faster(own, sometimes)), "0.95x (spread too wide to say)");
  // Against a target rather than 1.
  EXPECT_EQ(ratio_text(times_faster(own, always_slower), 1.15), "1.10x (spread too wide to say)");
}

TEST(Rows, TwoPairsThatAgreeProveNothing) {
  const Measured own = summarise({10, 30}), peer = summarise({12, 33});
  EXPECT_EQ(ratio_text(times_faster(own, peer)), "1.12x (spread too wide to say)");
  EXPECT_EQ(ratio_text(times_faster(summarise({10, 11}), peer)), "2.14x");
}

TEST(Rows, KeepTheRangeOfTheirRatios) {
  const Measured own = summarise({10, 20, 30}), peer = summarise({12, 19, 40});
  auto row = measured_row({"case", "flash", "step"}, own);
  add_ratio(row, "vanilla", own, peer);
  EXPECT_EQ(ratio_text(row, "vanilla"), "0.95x (spread too wide to say)");
  EXPECT_EQ(ratio_text(row, "sdpa"), "-");
  EXPECT_EQ(spread_text(row), "100 %");
  EXPECT_EQ(spread_text(measured_row({}, summarise({10}))), "one run");
  EXPECT_EQ(row.at("median_ms"), 20);
}

TEST(Published, FiguresNameTheirMachineAndQuantity) {
  EXPECT_EQ(published_json("baseline").size(), 7U);
  for (const Published& figure : published_figures()) {
    EXPECT_FALSE(figure.machine.empty() || figure.unit.empty() || figure.quantity.empty());
    EXPECT_GT(figure.value, 0);
  }
  EXPECT_TRUE(marks_published(published_markdown("baseline"), "54950"));
  EXPECT_TRUE(published_json("mask").empty());
  EXPECT_EQ(published_markdown("mask"), "");
}

TEST(BarChart, DrawsEachValueAndNamesItsUnit) {
  const std::string svg = bar_chart("a < b & c", "mask", "time, ms", {"one", "two"},
                                    {{"vanilla", {10, 1950}}, {"flash", {2.5, std::nullopt}}});
  EXPECT_EQ(count_of(svg, "<rect class='bar'"), 3U);
  for (const char* text : {"a &lt; b &amp; c", "time, ms", ">mask<", ">one<", ">two<", ">vanilla<",
                           ">flash<", ">1950<", ">2.5<", ">-<", "prefers-color-scheme:dark"}) {
    EXPECT_NE(svg.find(text), std::string::npos) << text;
  }
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(Svg, NumbersHaveNoExponents) {
  EXPECT_EQ(plain_number(1000), "1000");
  EXPECT_EQ(plain_number(1234567), "1234567");
  EXPECT_EQ(plain_number(12.345), "12.3");
  EXPECT_EQ(plain_number(0.1), "0.1");
}

TEST(BarChart, IsDrawnWithoutAnyValue) {
  const std::string svg =
      bar_chart("nothing", "mask", "time, ms", {"one"}, {{"flash", {std::nullopt}}});
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
}

}  // namespace
}  // namespace nanoflex
