#include "attention/flex/parse.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "attention/flex/masks.h"
#include "attention/flex/scores.h"
#include "tests/attention/random_expression.h"
#include "tests/attention/reference.h"

namespace nanoflex::flex {
namespace {

const Vocabulary kVocabulary = {
    {{"pad", Type::kBool}, {"slopes", Type::kFloat}, {"row", Type::kInt}, {"scale", Type::kFloat}}};

Expression mask(const std::string& text) { return parse_mask(text, kVocabulary); }
Expression score(const std::string& text) { return parse_score(text, kVocabulary); }

// Of a message: what is wrong, without the mend that follows it.
std::string first_part(const std::string& message) { return message.substr(0, message.find("; ")); }

std::string refused(const std::string& text) {
  return first_part(refusal([&] { mask(text); }));
}

std::string refused_score(const std::string& text) {
  return first_part(refusal([&] { score(text); }));
}

TEST(ParseMask, ReadsNamesOperatorsAndParentheses) {
  EXPECT_TRUE(equal(mask("causal"), causal()));
  EXPECT_TRUE(equal(mask(" causal&\tdocument\n"), causal() & document()));
  EXPECT_TRUE(equal(mask("window( 256 )"), window(256)));
  EXPECT_TRUE(equal(mask("full | !causal & window(0)"), full() | ((!causal()) & window(0))));
  EXPECT_TRUE(equal(mask("(full | causal) & document"), (full() | causal()) & document()));
  EXPECT_TRUE(equal(mask("full | causal | document"), (full() | causal()) | document()));
  EXPECT_TRUE(equal(mask("!!(causal)"), !!causal()));
  EXPECT_TRUE(equal(mask("prefix(3) | dilated(4) | block_sparse(64, 1, 4)"),
                    (prefix(3) | dilated(4)) | block_sparse(64, 1, 4)));
  EXPECT_TRUE(equal(mask("true & false"), Expression(true) & Expression(false)));
}

TEST(ParseMask, ReadsWholeExpressionsAsCppDoes) {
  const Expression b = batch_index(), h = head_index(), q = query_index(), kv = key_index();
  const Captured pad("pad", Type::kBool), row("row", Type::kInt);
  EXPECT_TRUE(equal(mask("causal & (window(256) | kv < 4)"), causal() & (window(256) | (kv < 4))));
  EXPECT_TRUE(equal(mask("q - kv - 1 <= 2 * -h % 3"), q - kv - 1 <= 2 * -h % 3));
  EXPECT_TRUE(equal(mask("q == kv | q != kv & q > kv"), (q == kv) | ((q != kv) & (q > kv))));
  EXPECT_TRUE(equal(mask("!pad[b][q + 1] & row[ row [q] ] / 2 >= kv"),
                    (!pad[b][q + 1]) & (row[row[q]] / 2 >= kv)));
  EXPECT_TRUE(equal(mask("select(q < 4, full, max(q, kv) < abs(-q))"),
                    select(q < 4, full(), max(q, kv) < abs(-q))));
  EXPECT_TRUE(equal(mask("document[b][q] == document[b][kv]"), document()));
}

TEST(ParseScore, ReadsScores) {
  const Expression h = head_index(), q = query_index(), kv = key_index(), s = score_value();
  const Captured slopes("slopes", Type::kFloat), scale("scale", Type::kFloat);
  EXPECT_TRUE(equal(score("score + slopes[h] * (kv - q)"), s + slopes[h] * (kv - q)));
  EXPECT_TRUE(equal(score("score + alibi_slopes[h] * (kv - q)"), alibi()));
  EXPECT_TRUE(equal(score("scale * tanh(score / 1.5e1)"), scale * tanh(s / 15.0)));
  EXPECT_TRUE(equal(score("softcap(30) - 2e-3"), softcap(30) - 2e-3));
  EXPECT_TRUE(
      equal(score("select(causal & document, alibi, -inf)"),
            select(causal() & document(), alibi(), -std::numeric_limits<double>::infinity())));
  EXPECT_TRUE(equal(score("relative_bias(8) + relative_bias[h][0]"),
                    relative_bias(8) + Captured("relative_bias", Type::kFloat)[h][0]));
  EXPECT_TRUE(equal(score("min(exp(score), log(sqrt(sigmoid(score)))) + floor(.5)"),
                    min(exp(s), log(sqrt(sigmoid(s)))) + floor(Expression(0.5))));
  EXPECT_TRUE(equal(score("-9223372036854775808"), std::numeric_limits<int64_t>::min()));
}

TEST(Parse, ShowsTheWholeMessage) {
  EXPECT_EQ(refusal([] { parse_mask("casual & document"); }),
            "[mask] unknown name 'casual' at column 1 of \"casual & document\"; did you mean "
            "'causal'? known: causal, full, window(n), prefix(n), document, dilated(n), "
            "block_sparse(n, local, every), b, h, q, kv, abs, floor, exp, log, sqrt, tanh, "
            "sigmoid, min, max, select, true, false, inf; tensors alibi_slopes, document, "
            "relative_bias\n"
            "  casual & document\n"
            "  ^");
  EXPECT_EQ(refusal([] { parse_score("score +\t(q & 1)"); }),
            "[score] '&' needs truth values, but 'q' is a integer at column 12 of \"score + (q & "
            "1)\"; comparisons and masks are truth values\n"
            "  score + (q & 1)\n"
            "             ^");
  const std::string left(200, ' '), right(300, '+');
  EXPECT_EQ(refusal([&] { parse_mask(left + "q < \x01" + right); }),
            "[mask] unexpected '?' at column 205 of \"" + std::string(80, ' ') +
                "...\"; what may stand here: names, numbers, + - * / %, comparisons, & | ! and ( ) "
                "[ ] ,\n"
                "  ..." +
                std::string(36, ' ') + "q < ?" + std::string(39, '+') + "...\n" +
                std::string(45, ' ') + "^");
}

TEST(Parse, SaysWhereAndWhatWasMeant) {
  EXPECT_EQ(refused("causal & zebra"),
            "[mask] unknown name 'zebra' at column 10 of \"causal & zebra\"");
  EXPECT_EQ(refused(""), "[mask] expected a value but found 'end' at column 1 of \"\"");
  EXPECT_EQ(refused("causal &"),
            "[mask] expected a value but found 'end' at column 9 of \"causal &\"");
  EXPECT_EQ(refused("causal document"),
            "[mask] unexpected 'document' at column 8 of \"causal document\"");
  EXPECT_EQ(refused("(causal"), "[mask] expected ')' but found 'end' at column 8 of \"(causal\"");
  EXPECT_EQ(refused("causal)"), "[mask] unexpected ')' at column 7 of \"causal)\"");
  EXPECT_EQ(refused("causal $ full"), "[mask] unexpected '$' at column 8 of \"causal $ full\"");
  EXPECT_EQ(refused("causal && full"), "[mask] unexpected '&&' at column 8 of \"causal && full\"");
  EXPECT_EQ(refused("q = kv"), "[mask] unexpected '=' at column 3 of \"q = kv\"");
  EXPECT_EQ(refused("1 < q < 4"),
            "[mask] comparisons do not chain: unexpected '<' at column 7 of \"1 < q < 4\"");
  EXPECT_EQ(refused("q < 12ab"), "[mask] '12ab' is not a number at column 5 of \"q < 12ab\"");
  EXPECT_EQ(refused("q < 9223372036854775808"),
            "[mask] '9223372036854775808' is out of range at column 5 of \"q < "
            "9223372036854775808\"");
  EXPECT_EQ(refused("q < 1e999"), "[mask] '1e999' is out of range at column 5 of \"q < 1e999\"");
}

TEST(Parse, TellsTypeErrorsAtTheirPlace) {
  EXPECT_EQ(refused("q"),
            "[mask] a mask must be a truth value, 'q' is a integer at column 1 of "
            "\"q\"");
  EXPECT_EQ(refused("kv < score"),
            "[mask] a mask cannot read the score: 'score' at column 6 of \"kv < score\"");
  EXPECT_EQ(refused("softcap(3) < 1"),
            "[mask] a mask cannot read the score: 'softcap' at column 1 of \"softcap(3) < 1\"");
  EXPECT_EQ(refused_score(" causal"),
            "[score] a score must be a number, 'causal' is a truth value at column 2 of \" "
            "causal\"");
  EXPECT_EQ(refused("causal | q + causal < 1"),
            "[mask] '+' needs numbers, but 'causal' is a truth value at column 12 of \"causal | q "
            "+ causal < 1\"");
  EXPECT_EQ(refused("q < min(1, full)"),
            "[mask] 'min' needs numbers, but 'full' is a truth value at column 5 of \"q < min(1, "
            "full)\"");
  EXPECT_EQ(refused("row[q][1.5] < 2"),
            "[mask] tensor 'row' needs integer indices, '1.5' is a float at column 8 of "
            "\"row[q][1.5] < 2\"");
  EXPECT_EQ(refused("q % 0 == 1"), "[mask] 'q' is divided by zero at column 3 of \"q % 0 == 1\"");
}

TEST(Parse, ChecksArgumentsAndIndices) {
  EXPECT_EQ(refused("window"), "[mask] expected '(' but found 'end' at column 7 of \"window\"");
  EXPECT_EQ(refused("causal(3)"), "[mask] 'causal' takes no argument at column 7 of \"causal(3)\"");
  EXPECT_EQ(refused("window(1, 2)"),
            "[mask] expected ')' but found ',' at column 9 of \"window(1, 2)\"");
  EXPECT_EQ(refused("window(-1)"),
            "[mask] '-1' is not such a number at column 8 of \"window(-1)\"");
  EXPECT_EQ(refused("window(1.5)"),
            "[mask] '1.5' is not such a number at column 8 of \"window(1.5)\"");
  EXPECT_EQ(refused("block_sparse(8, 1, 0)"),
            "[mask] '0' is not such a number at column 20 of \"block_sparse(8, 1, 0)\"");
  EXPECT_EQ(refused_score("softcap(0)"),
            "[score] '0' is not such a number at column 9 of \"softcap(0)\"");
  EXPECT_EQ(refused("max(q) < 1"),
            "[mask] expected ',' but found ')' at column 6 of \"max(q) < 1\"");
  EXPECT_EQ(refused("q[0] < 1"),
            "[mask] 'q' is no tensor, only tensors have indices at column 1 of \"q[0] < 1\"");
  EXPECT_EQ(refused("slope[h] < 1"),
            "[mask] 'slope' is no tensor, only tensors have indices at column 1 of \"slope[h] < "
            "1\"");
  EXPECT_EQ(refused("(row)[0] < 1"), "[mask] unexpected '[' at column 6 of \"(row)[0] < 1\"");
}

TEST(Parse, RefusesTensorsWithNamesThatMeanSomethingElse) {
  const auto message = [](const std::string& name, Type type) {
    return refusal([&] { parse_mask("full", {{{name, type}}}); });
  };
  EXPECT_EQ(message("kv", Type::kInt),
            "[mask] tensor 'kv' has a name that means something else; rename it");
  EXPECT_NE(message("select", Type::kInt), "");
  EXPECT_NE(message("softcap", Type::kInt), "");
  EXPECT_NE(message("inf", Type::kFloat), "");
  EXPECT_EQ(message("document", Type::kFloat),
            "[mask] tensor 'document' must hold elements of type integer, holds float");
  EXPECT_EQ(message("document", Type::kInt), "");
  EXPECT_EQ(message("never\nmeant", Type::kInt), "");
}

TEST(Parse, IsBounded) {
  EXPECT_NE(refused(std::string(5000, ' ')).find("the text has 5000 characters, at most 4096"),
            std::string::npos);
  for (const std::string open : {"(", "!", "-", "abs(", "row["}) {
    std::string text;
    for (int i = 0; i < 100; ++i) text += open;
    EXPECT_NE(refused(text).find("more than 64 levels of nesting"), std::string::npos) << open;
  }
  std::string longest = "full", deepest = "q<1";
  while (longest.size() + 5 <= 4096) longest += "&full";
  EXPECT_EQ(refused(longest), "");
  while (deepest.size() + 2 <= 4096) deepest += "+1";
  EXPECT_NE(refused(deepest).find("the expression is too large"), std::string::npos);
}

// A value, or three lines that can be shown: the last has its caret under the column.
void expect_value_or_message(const std::string& text, int& accepted) {
  for (const bool is_score : {false, true}) {
    const std::string message = refusal([&] { is_score ? score(text) : mask(text); });
    accepted += message.empty();
    if (message.empty()) continue;
    ASSERT_EQ(std::count(message.begin(), message.end(), '\n'), 2) << message;
    for (const char c : message) ASSERT_TRUE((c >= ' ' && c <= '~') || c == '\n') << message;
    ASSERT_EQ(message.back(), '^') << message;
    ASSERT_TRUE(message.size() < 1500) << message;
  }
}

TEST(Parse, AnyWordsAndAnyBytesEndInAValueOrAMessage) {
  const std::vector<std::string> pieces = {"causal", "full",    "window(",  "(",
                                           ")",      "3",       "&",        "|",
                                           "!",      ",",       "-",        " ",
                                           "\n",     "<",       "==",       "q",
                                           "kv",     "score",   "slopes",   "[",
                                           "]",      "h",       "+",        "1.5",
                                           "min(",   "select(", "document", "%",
                                           "/",      "\xff",    "b",        "*",
                                           "alibi",  "inf",     "softcap(", "pad[b][q]",
                                           "99",     "cau",     "1e",       "e5",
                                           "->",     "_ab_",    "scale",    std::string("\0x", 2)};
  std::mt19937_64 random(11);
  int accepted = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string text;
    for (uint64_t n = random() % 12; n > 0; --n) text += pieces[random() % pieces.size()];
    SCOPED_TRACE("seed 11, text " + std::to_string(i));
    expect_value_or_message(text, accepted);
  }
  EXPECT_GT(accepted, 100);
  for (int i = 0; i < 2000; ++i) {
    std::string text(random() % 200, ' ');
    for (char& c : text) c = static_cast<char>(random() % (i % 2 == 0 ? 256 : 96) + (i % 2) * 32);
    SCOPED_TRACE("seed 11, bytes " + std::to_string(i));
    expect_value_or_message(text, accepted);
  }
}

TEST(Parse, ReadsBackWhatToTextWrites) {
  const int64_t B = 2, H = 3, T = 5, S = 6;
  int read = 0;
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    std::mt19937_64 random(seed);
    RandomExpression make = {
        .random = random, .B = B, .H = H, .T = T, .S = S, .wild = seed % 2 == 0};
    make.tensors = random_tensors(random, B, H, S);
    const bool is_score = seed % 3 == 0;
    const Expression made = is_score ? make.score(4) : make.mask(4);
    const std::string text = to_text(made);
    if (text.size() > 4096) continue;
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + text);
    const Vocabulary vocabulary = vocabulary_of(make.tensors);
    const Expression back = is_score ? parse_score(text, vocabulary) : parse_mask(text, vocabulary);
    ASSERT_TRUE(same_form(back, made)) << to_text(back);
    ++read;
  }
  EXPECT_GT(read, 900);
}

}  // namespace
}  // namespace nanoflex::flex
