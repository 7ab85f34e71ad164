// Reports in a real browser: no error, charts that are drawn and answer, no page wider than its
// screen.
#include <gtest/gtest.h>

#include "tests/required.h"
#include "tests/trainer/browser.h"
#include "tests/trainer/report_record.h"
#include "trainer/comparison.h"
#include "trainer/report.h"

namespace nanoflex {
namespace {

using nlohmann::json;

class ReportBrowserTest : public testing::Test {
 protected:
  void SetUp() override {
    browser_ = find_browser();
    if (browser_) return;
    constexpr char kReason[] = "no Chromium or Chrome on PATH; scripts/setup browser installs one";
    if (is_required("browser")) FAIL() << kReason;
    GTEST_SKIP() << kReason;
  }
  std::optional<std::string> browser_;
};

std::string comparison_page() {
  RunSummary first;
  first.id = kHostile;
  first.status = "finished";
  first.backend = "flex";
  first.config = {{"attention", {{"mask", "causal & window(64) & " + std::string(300, 'x')}}}};
  RunSummary second = first;
  second.id = "b";
  second.config["attention"]["mask"] = "causal";
  return to_html(compare({first, second}), {record_of(2500).metrics, record_of(40).metrics});
}

std::string troubled_page() {
  FullRecord record = record_of(9);
  record.metrics[3].loss = NAN;
  record.metrics[5].grad_norm = 0;
  record.metrics[6].tokens = NAN;
  record.metrics[8].step_seconds = NAN;
  record.summary["results"] = nullptr;
  return html_report(record);
}

TEST_F(ReportBrowserTest, PagesDrawAndAnswerOnADesktopAndAPhone) {
  const std::vector<std::string> pages = {html_report(record_of(60, kHostile)),
                                          html_report(record_of(100'000)),
                                          html_report(record_of(1)),
                                          html_report({}),
                                          troubled_page(),
                                          comparison_page()};
  std::vector<Visit> visits;
  for (const std::string& page : pages) {
    visits.push_back({.page = page, .width = 1280, .height = 900});
    visits.push_back({.page = page, .width = 390, .height = 844});
  }
  const Seen seen = open_in_browser(*browser_, visits);
  EXPECT_EQ(seen.console, std::vector<std::string>{});
  ASSERT_EQ(seen.pages.size(), visits.size());
  for (size_t i = 0; i < visits.size(); ++i) {
    SCOPED_TRACE("page " + std::to_string(i / 2) + " at " + std::to_string(visits[i].width));
    const json& page = seen.pages[i];
    EXPECT_EQ(page.at("errors"), json::array());
    EXPECT_EQ(page.at("innerWidth"), visits[i].width);
    EXPECT_EQ(page.at("innerHeight"), visits[i].height);
    EXPECT_TRUE(page.at("scrollWidth") <= visits[i].width) << page.at("scrollWidth");
    const size_t charts = i / 2 == 3 ? 0 : 5;  // an empty record has none
    EXPECT_EQ(page.at("charts"), charts);
    if (charts == 0) continue;
    ASSERT_EQ(page.at("painted").size(), charts);
    for (const json& pixels : page.at("painted")) EXPECT_TRUE(pixels > 300) << page.at("painted");
    for (const json& text : page.at("hovered"))
      EXPECT_TRUE(text.get<std::string>().find(" at step") != std::string::npos) << text;
    const bool one_step = i / 2 == 2;
    if (!one_step) {
      EXPECT_NE(page.at("zoomed"), page.at("axis"));
    }
    EXPECT_FALSE(page.at("logarithmic").empty());
  }
  // The pointer amid the loss of 60 steps reads one of them.
  EXPECT_NE(seen.pages[0].at("hovered")[0].get<std::string>().find("nats per token at step 3"),
            std::string::npos)
      << seen.pages[0].at("hovered")[0];
  EXPECT_NE(seen.pages[2].at("hovered")[0].get<std::string>().find(" at steps "),
            std::string::npos);
  EXPECT_NE(seen.pages[10].at("values")[0].get<std::string>().find(kHostile), std::string::npos);
}

TEST_F(ReportBrowserTest, FollowsTheColourSchemeThatTheReaderPrefers) {
  const std::vector<Visit> visits = {{.page = html_report(record_of(5))}};
  const json light = open_in_browser(*browser_, visits).pages.at(0);
  const json dark = open_in_browser(*browser_, visits, /*dark=*/true).pages.at(0);
  EXPECT_EQ(light.at("background"), "rgb(246, 246, 243)");
  EXPECT_EQ(dark.at("background"), "rgb(20, 23, 26)");
  EXPECT_EQ(dark.at("errors"), json::array());
}

// Else the first test could pass whatever the pages do.
TEST_F(ReportBrowserTest, TheseTestsSeeErrorsRequestsAndPagesThatAreTooWide) {
  const auto broken = [](const std::string& body) {
    std::string page = html_report(record_of(5));
    return page.insert(page.find("<header>"), body);
  };
  std::string without_charts = html_report(record_of(5));
  without_charts.replace(without_charts.rfind("new Dygraph("), 12, "new NoSuch_(");
  const Seen seen = open_in_browser(
      *browser_,
      {{.page = broken("<script>no_such_function()</script>")},
       {.page = broken("<img src=\"http://127.0.0.1:9/picture.png\">")},
       {.page = broken("<div style=\"width:500px\">wide</div>"), .width = 390, .height = 844},
       {.page = without_charts}});
  EXPECT_NE(seen.pages.at(0).at("errors").dump().find("no_such_function is not defined"),
            std::string::npos);
  EXPECT_NE(seen.pages.at(1).at("errors").dump().find("refused: img-src"), std::string::npos);
  EXPECT_TRUE(seen.pages.at(2).at("scrollWidth") > 390);
  EXPECT_EQ(seen.pages.at(3).at("charts"), 0);
  EXPECT_FALSE(seen.console.empty());
}

}  // namespace
}  // namespace nanoflex
