#include "evidence/verify_model.h"

#include <gtest/gtest.h>

#include "attention/flex/masks.h"
#include "attention/flex/parse.h"

namespace nanoflex {
namespace {

AttentionSetup setup(const std::string& backend, const flex::Expression& mask) {
  return {.backend = backend, .n_head = 4, .mask = mask};
}

TEST(VerifyModel, PassesWhatIsRightAndSaysByHowMuch) {
  const VerifyModelOptions options = {.steps = 3};
  const auto checks =
      verify_pair(options, 2, setup("flash", flex::causal()), setup("vanilla", flex::causal()));
  EXPECT_EQ(checks.size(), 6U);
  for (const ModelCheck& check : checks) {
    EXPECT_TRUE(check.passed()) << check.check << ": " << check.difference << " > " << check.bound;
    EXPECT_GT(check.bound, 0);
    EXPECT_EQ(check.heads, "GQA");
  }
  EXPECT_TRUE(to_json(checks, options).at("passed").get<bool>());
}

// As if a kernel forgot the key that is farthest away.
TEST(VerifyModel, FailsWhatIsWrongForASinglePair) {
  const VerifyModelOptions options = {.steps = 3};
  const auto checks = verify_pair(options, 4, setup("flash", flex::causal() & flex::window(254)),
                                  setup("vanilla", flex::causal()));
  for (const ModelCheck& check : checks) {
    if (check.check == "full forward" || check.check == "gradients") {
      EXPECT_FALSE(check.passed()) << check.check << ": " << check.difference;
    }
  }
  EXPECT_FALSE(to_json(checks, options).at("passed").get<bool>());
  EXPECT_NE(to_markdown(checks).find("| FAIL | flash | MHA | full forward |"), std::string::npos);
}

// A root's slope at 0 is infinite: all is right but the gradients of what comes before the scores,
// and those of what comes after them follow.
TEST(VerifyModel, FailsGradientsThatAreNotNumbers) {
  AttentionSetup broken = setup("flex", flex::causal());
  broken.score = flex::parse_score("score + sqrt(score * 0.0) * 0.0");
  const auto checks = verify_pair({.steps = 1}, 4, broken, setup("vanilla", flex::causal()));
  for (const ModelCheck& check : checks) {
    const bool right = check.check == "full forward", wrong = check.check == "gradients";
    EXPECT_TRUE(!right || check.passed()) << check.difference;
    EXPECT_FALSE(wrong && check.passed()) << check.difference;
  }
}

TEST(VerifyModel, ACertificateWithoutAFusedBackendFails) {
  const ModelCheck right = {"MHA", "tiled", "gradients", 1, 2, "a rule"};
  ModelCheck missing = {"-", "flash", "left out", 0, 0, "no compiler", true, true};
  EXPECT_TRUE(to_json({right}, {}).at("passed").get<bool>());
  EXPECT_FALSE(to_json({right, missing}, {}).at("passed").get<bool>());
  EXPECT_FALSE(to_json({}, {}).at("passed").get<bool>());
  EXPECT_NE(to_markdown({missing}).find("| FAIL | flash | "), std::string::npos);
  missing.needed = false;
  EXPECT_TRUE(to_json({right, missing}, {}).at("passed").get<bool>());
  EXPECT_NE(to_markdown({missing}).find("| SKIPPED | flash | "), std::string::npos);
}

TEST(VerifyModel, RefusesAnUnknownModelByName) {
  try {
    verify_suite({.model = "huge"});
    FAIL() << "nothing was refused";
  } catch (const std::invalid_argument& error) {
    EXPECT_STREQ(error.what(), "[verify] --model must be one of deep, standard, is 'huge'");
  }
}

}  // namespace
}  // namespace nanoflex
