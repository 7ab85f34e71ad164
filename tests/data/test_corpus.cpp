#include "data/corpus.h"
#include "data/utf8.h"
#include "tests/data/scratch.h"

namespace nanoflex::data {
namespace {

TEST(Corpus, AFolderIsItsFilesInOrderWithoutHiddenOnes) {
  const Scratch scratch;
  scratch.write("text/b.txt", "second");
  scratch.write("text/a/z.txt", "first");
  scratch.write("text/.hidden", "never");
  scratch.write("text/.git/c.txt", "never");
  const auto files = corpus_files(scratch.path("text"));
  ASSERT_EQ(files.size(), 2);
  EXPECT_EQ(read_documents(files[0]), std::vector<std::string>{"first"});
  EXPECT_EQ(read_documents(files[1]), std::vector<std::string>{"second"});
}

TEST(Corpus, LinksThatLeadInCirclesAreReadOnce) {
  const Scratch scratch;
  scratch.write("text/b/one.txt", "x");
  scratch.write("elsewhere/two.txt", "x");
  for (const char* link : {"text/up", "text/b/up", "text/b/again"}) {
    std::filesystem::create_directory_symlink(scratch.path("text"), scratch.path(link));
  }
  std::filesystem::create_directory_symlink(scratch.path("text/b"), scratch.path("text/a"));
  std::filesystem::create_directory_symlink(scratch.path("elsewhere"), scratch.path("text/c"));
  // b by its first name, as on a file system that lists its folders in another order.
  EXPECT_EQ(corpus_files(scratch.path("text")),
            (std::vector<std::filesystem::path>{scratch.path("text/a/one.txt"),
                                                scratch.path("text/c/two.txt")}));
}

TEST(Corpus, ByteOrderMarkAndCarriageReturnsAreDropped) {
  const Scratch scratch;
  EXPECT_EQ(read_text(scratch.write("a.txt", "\xEF\xBB\xBFone\r\ntwo\rthree\r\n")),
            "one\ntwo\rthree\n");
  EXPECT_EQ(read_text(scratch.write("b.txt", "one\r\n")), "one\n");
}

TEST(Corpus, EachLineOfJsonlIsADocument) {
  const Scratch scratch;
  const auto file = scratch.write(
      "a.jsonl", "{\"text\": \"one\\ntwo \\u00e9\"}\r\n\n  \n{\"id\": 3, \"text\": \"three\"}");
  EXPECT_EQ(read_documents(file), (std::vector<std::string>{"one\ntwo \u00e9", "three"}));
}

TEST(Corpus, MalformedInputIsRefusedByFileAndLine) {
  const Scratch scratch;
  const auto documents = [&](const std::string& name, const std::string& content) {
    return [file = scratch.write(name, content)] { read_documents(file); };
  };
  const std::string good = "{\"text\": \"x\"}\n\n";
  expect_refusal("a.jsonl:3: malformed JSON", documents("a.jsonl", good + "{\"text\": "));
  expect_refusal("b.jsonl:3: no field `text`", documents("b.jsonl", good + "{\"txt\": \"x\"}"));
  expect_refusal("c.jsonl:3: the field `text` must be a string, is number",
                 documents("c.jsonl", good + "{\"text\": 7}"));
  expect_refusal("d.jsonl:1: no field `text`", documents("d.jsonl", "[1, 2]\n"));
  expect_refusal("e.jsonl holds no text", documents("e.jsonl", "\n\n"));
  expect_refusal("f.txt:2: invalid UTF-8 at byte 5", documents("f.txt", "one\nt\xFFo\n"));
  expect_refusal("g.txt is empty", documents("g.txt", ""));
  expect_refusal("no such file or folder", [&] { corpus_files(scratch.path("none")); });
  expect_refusal(": File name too long", [] { corpus_files(std::string(300, 'a')); });
  std::filesystem::create_directories(scratch.path("empty"));
  expect_refusal("holds no files", [&] { corpus_files(scratch.path("empty")); });
}

TEST(Utf8, OnlyWellFormedCharactersPass) {
  for (const std::string good : {"", "plain ascii, long enough", "\u00e9", "\u20ac", "\U0001F600",
                                 "\xF4\x8F\xBF\xBF", "\xED\x9F\xBF", "eight...\u00e9"}) {
    EXPECT_EQ(first_invalid_utf8(good), good.size()) << good;
  }
  for (const std::string bad : {"\x80", "\xC0\xAF", "\xE0\x80\xAF", "\xED\xA0\x80",
                                "\xF5\x80\x80\x80", "\xF4\x90\x80\x80", "\xE2\x82", "\xC3"}) {
    EXPECT_EQ(first_invalid_utf8("eight..." + bad), 8);
  }
}

}  // namespace
}  // namespace nanoflex::data
