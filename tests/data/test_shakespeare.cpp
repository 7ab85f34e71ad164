#include <algorithm>
#include <map>

#include "data/corpus.h"
#include "data/shakespeare.h"
#include "tests/data/scratch.h"

namespace nanoflex::data {
namespace {

namespace fs = std::filesystem;

const char* const kPlay = R"(THE PLAY
by Nobody

SCENE: Troy, and the camp before it.

PROLOGUE

In Troy, there lies the
scene that I would see.

ACT I.

Scene I. A street.
Act hath three branches.

SCENE 2.The same.

PROLOGUE
I am the players' prologue, not a heading.

ACT SECOND

SCENE III
Two.

ACT IV. SCENE I. A camp.
Three.

Act 5.
SCENE IV.--The sea.
action!

EPILOGUE.
Farewell.
)";

TEST(Shakespeare, EveryStyleOfHeadingOpensADocumentAndKeepsItsHeading) {
  const auto documents = split_work(kPlay);
  std::vector<std::string> starts;
  for (const auto& document : documents)
    starts.push_back(document.substr(0, document.find("\n\n")));
  EXPECT_EQ(starts, (std::vector<std::string>{
                        "THE PLAY\nby Nobody", "PROLOGUE", "ACT I.", "SCENE 2.The same.",
                        "ACT SECOND", "ACT IV. SCENE I. A camp.\nThree.\n",
                        "Act 5.\nSCENE IV.--The sea.\naction!\n", "EPILOGUE.\nFarewell.\n"}));
  EXPECT_EQ(documents[2], "ACT I.\n\nScene I. A street.\nAct hath three branches.\n");
  EXPECT_TRUE(documents[3].find("PROLOGUE\nI am") != std::string::npos) << documents[3];
}

TEST(Shakespeare, ActsAfterAPrologueOfTheirOwnKeepIt) {
  const auto documents = split_work(
      "TITLE\n\nACT II.\n\nPROLOGUE.\n\n[Enter]\nO\n\nSCENE I. A "
      "street.\n\nHi\n\nINDUCTION\n\nSCENE I.\nHo\n");
  ASSERT_EQ(documents.size(), 4);
  EXPECT_EQ(documents[1], "ACT II.\n\nPROLOGUE.\n\n[Enter]\nO\n");
  EXPECT_EQ(documents[3], "INDUCTION\n\nSCENE I.\nHo\n");
}

TEST(Shakespeare, NumberedPoemsAreDocumentsAndOthersAreWhole) {
  const auto sonnets =
      split_work("SONNETS\nby X\n\n\nI\n\n  From fairest\n\nII.\n\nWhen forty\n\nXC\nThen\n");
  EXPECT_EQ(sonnets, (std::vector<std::string>{"SONNETS\nby X\n\nI\n\n  From fairest\n",
                                               "II.\n\nWhen forty\n", "XC\nThen\n"}));
  EXPECT_EQ(split_work("\n  A POEM\n\nI am one.\n\nAnd whole.\n\n\n"),
            std::vector<std::string>{"  A POEM\n\nI am one.\n\nAnd whole.\n"});
}

TEST(Shakespeare, OldSpellingsAndMetadataAreLeftOut) {
  const Scratch scratch;
  for (const char* name : {"b_gut.txt", "a_gut.txt", "a_gut_f.txt", "metadata.txt"}) {
    scratch.write(name, "text");
  }
  const auto files = shakespeare_files(scratch.path(""));
  ASSERT_EQ(files.size(), 2);
  EXPECT_EQ(files[0].filename(), "a_gut.txt");
  expect_refusal("the default text is not in", [&] { shakespeare_files(scratch.path("none")); });
}

TEST(Shakespeare, TheRealWorksFallIntoTheirScenes) {
  const fs::path folder =
      fs::path(__FILE__).parent_path().parent_path().parent_path() / ".deps/text/shakespeare";
  if (!fs::exists(folder)) GTEST_SKIP() << "the default text is not in " << folder;
  std::map<std::string, size_t> counts;
  for (const auto& file : shakespeare_files(folder)) {
    const std::string text = read_text(file);
    const auto documents = split_work(text);
    counts[file.filename().string()] = documents.size();
    size_t letters = 0;
    for (const auto& document : documents) {
      letters += std::count_if(document.begin(), document.end(), [](char c) { return c > ' '; });
    }
    EXPECT_EQ(letters, std::count_if(text.begin(), text.end(), [](char c) { return c > ' '; }))
        << file << ": text was lost or doubled";
    const bool poem = counts[file.filename().string()] == 1;
    EXPECT_TRUE(!poem || text.find("SCENE") == std::string::npos) << file << " is one document";
  }
  EXPECT_EQ(counts.size(), 42);
  EXPECT_EQ(counts["sonnets_gut.txt"], 154);
  // The cast, and: 20 scenes; 42 scenes; 23 scenes, 5 prologues and an epilogue; 24 scenes and a
  // prologue.
  EXPECT_EQ(counts["hamlet_gut.txt"], 21);
  EXPECT_EQ(counts["antony_and_cleopatra_gut.txt"], 43);
  EXPECT_EQ(counts["henry_v_gut.txt"], 30);
  EXPECT_EQ(counts["troilus_and_cressida_gut.txt"], 26);
}

}  // namespace
}  // namespace nanoflex::data
