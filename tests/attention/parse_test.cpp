#include "attention/flex/parse.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/attention/reference.h"

namespace nanoflex::flex {
namespace {

const std::string kKnown = "known: causal, full, window(n), document";

std::string refused(const std::string& text) {
  return refusal([&] { parse_mask(text); });
}

TEST(ParseMask, ReadsNamesOperatorsAndParentheses) {
  EXPECT_TRUE(equal(parse_mask("causal"), causal()));
  EXPECT_TRUE(equal(parse_mask(" causal&\tdocument "), causal() & document()));
  EXPECT_TRUE(equal(parse_mask("window( 256 )"), window(256)));
  EXPECT_TRUE(equal(parse_mask("full | !causal & window(0)"), full() | ((!causal()) & window(0))));
  EXPECT_TRUE(equal(parse_mask("(full | causal) & document"), (full() | causal()) & document()));
  EXPECT_TRUE(equal(parse_mask("full | causal | document"), (full() | causal()) | document()));
  EXPECT_TRUE(equal(parse_mask("!!(causal)"), !!causal()));
}

TEST(ParseMask, SaysWhereAndWhatWasMeant) {
  EXPECT_EQ(refused("casual & document"),
            "[mask] unknown name 'casual' at column 1 of \"casual & document\"; did you mean "
            "'causal'? " +
                kKnown);
  EXPECT_EQ(refused("causal & zebra"),
            "[mask] unknown name 'zebra' at column 10 of \"causal & zebra\"; " + kKnown);
  EXPECT_EQ(refused(""), "[mask] expected a mask but found 'end' at column 1 of \"\"; " + kKnown);
  EXPECT_EQ(refused("causal &"),
            "[mask] expected a mask but found 'end' at column 9 of \"causal &\"; " + kKnown);
  EXPECT_EQ(
      refused("causal document"),
      "[mask] unexpected 'document' at column 8 of \"causal document\"; join masks with & or |");
  EXPECT_EQ(
      refused("(causal"),
      "[mask] expected ')' but found 'end' at column 8 of \"(causal\"; close what '(' opened");
  EXPECT_EQ(refused("causal)"),
            "[mask] unexpected ')' at column 7 of \"causal)\"; join masks with & or |");
  EXPECT_EQ(
      refused("causal $ full"),
      "[mask] unexpected '$' at column 8 of \"causal $ full\"; masks are made of names, & | ! and "
      "( )");
}

TEST(ParseMask, ChecksArguments) {
  EXPECT_EQ(refused("window"),
            "[mask] expected '(' but found 'end' at column 7 of \"window\"; write window(n)");
  EXPECT_EQ(refused("causal(3)"),
            "[mask] 'causal' takes no argument at column 7 of \"causal(3)\"; write causal");
  EXPECT_EQ(refused("window(1, 2)"),
            "[mask] expected ')' but found ',' at column 9 of \"window(1, 2)\"; write window(n)");
  const std::string mend = "; window(n) needs an integer n of at least 0";
  EXPECT_EQ(refused("window(-1)"),
            "[mask] '-' is not such a number at column 8 of \"window(-1)\"" + mend);
  EXPECT_EQ(refused("window(1.5)"),
            "[mask] '1.5' is not such a number at column 8 of \"window(1.5)\"" + mend);
  EXPECT_EQ(refused("window(99999999999999999999)"),
            "[mask] '99999999999999999999' is not such a number at column 8 of "
            "\"window(99999999999999999999)\"" +
                mend);
}

TEST(ParseMask, IsBounded) {
  EXPECT_NE(refused(std::string(5000, ' ')).find("the text has 5000 characters, at most 4096"),
            std::string::npos);
  EXPECT_NE(refused(std::string(100, '(')).find("more than 64 levels of nesting at column 65"),
            std::string::npos);
  EXPECT_NE(refused(std::string(100, '!')).find("more than 64 levels of nesting"),
            std::string::npos);
  std::string longest = "full";
  while (longest.size() + 5 <= 4096) longest += "&full";
  EXPECT_EQ(refused(longest), "");
}

TEST(ParseMask, AnyBytesEndInAMaskOrAOneLineMessage) {
  const std::vector<std::string> pieces = {
      "causal", "full",  "window", "(",   ")", "3",    "&",
      "|",      "!",     ",",      "-",   " ", "\n",   "document",
      "\xff",   "\x1b[", "99",     "cau", "",  "_ab_", std::string("\0x", 2)};
  std::mt19937_64 random(11);
  int accepted = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (uint64_t n = random() % 9; n > 0; --n) text += pieces[random() % pieces.size()];
    const std::string message = refused(text);
    accepted += message.empty();
    for (const char c : message) ASSERT_TRUE(c >= ' ' && c <= '~') << message;
  }
  EXPECT_GT(accepted, 20);
}

Expression random_mask(std::mt19937_64& random, int depth) {
  if (depth == 0) {
    const std::vector<Expression> leaves = {causal(), full(), window(random() % 300), document()};
    return leaves[random() % leaves.size()];
  }
  const Expression left = random_mask(random, depth - 1),
                   right = random_mask(random, random() % depth);
  return random() % 3 == 0 ? left & right : random() % 2 == 0 ? left | right : !left;
}

TEST(ParseMask, ReadsBackWhatToTextWrites) {
  std::mt19937_64 random(12);
  for (int i = 0; i < 300; ++i) {
    const Expression mask = random_mask(random, 4);
    EXPECT_TRUE(equal(parse_mask(to_text(mask)), mask)) << to_text(mask);
  }
}

}  // namespace
}  // namespace nanoflex::flex
