#include <ATen/Functions.h>

#include <filesystem>

#include "data/encode.h"
#include "data/tokenizer.h"
#include "tests/data/scratch.h"

namespace nanoflex::data {
namespace {

std::string trained_model(int64_t vocab_size = 400) {
  const std::string text = verses(1, 200);
  return train_tokenizer({text}, vocab_size);
}

const std::vector<std::string>& difficult_texts() {
  static const std::vector<std::string> texts{
      "",
      " ",
      "\n\n\n",
      "the bird of loudest lay\n  on the sole Arabian tree\n",
      "  double  spaces \t tabs\t\tand trailing  ",
      "emoji \U0001F600\U0001F468\u200D\U0001F469, \u4f60\u597d, \u00e9\u0301, \uFB01 \u00BD",
      std::string("a NUL \0 inside", 14),
      "carriage\rreturn \u2028 \u00A0 \uFEFF",
      "the marks \u2581 \u2581\u2581 \u2585 and <s> <unk> <0x0A>",
      std::string(20000, 'x').append("\n").append(verses(2, 50)),
  };
  return texts;
}

TEST(Tokenizer, DecodingGivesBackEveryByte) {
  const Scratch scratch;
  const auto tokenizer = Tokenizer::load(scratch.write("a.model", trained_model()));
  for (const auto& text : difficult_texts()) {
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
}

TEST(Tokenizer, TokenBytesAddUpToTheText) {
  const Scratch scratch;
  const auto tokenizer = Tokenizer::load(scratch.write("a.model", trained_model()));
  const at::Tensor bytes = tokenizer->token_bytes();
  ASSERT_EQ(bytes.sizes(), at::IntArrayRef({tokenizer->vocab_size()}));
  EXPECT_EQ(bytes[*tokenizer->bos_id()].item<int64_t>(), 0);
  for (const auto& text : difficult_texts()) {
    int64_t sum = 0;
    for (const int32_t id : tokenizer->encode(text)) sum += bytes[id].item<int64_t>();
    EXPECT_EQ(sum, static_cast<int64_t>(text.size()));
  }
}

TEST(Tokenizer, TextIsCompressedAndPartsChangeNothing) {
  const Scratch scratch;
  const auto tokenizer = Tokenizer::load(scratch.write("a.model", trained_model()));
  for (const auto& text : difficult_texts()) {
    std::vector<int32_t> joined;
    for (const auto part : tokenizer->parts(text, 10)) {
      const auto ids = tokenizer->encode(part);
      joined.insert(joined.end(), ids.begin(), ids.end());
    }
    EXPECT_EQ(joined, tokenizer->encode(text));
  }
  const std::string text = verses(3, 100);
  EXPECT_LT(tokenizer->encode(text).size(), text.size() / 2);
  EXPECT_GT(tokenizer->parts(text, 100).size(), 10);
}

TEST(Tokenizer, TrainingIsRepeatableAndTakesTheVocabularyThatTextSupports) {
  const Scratch scratch;
  EXPECT_EQ(trained_model(), trained_model());
  EXPECT_EQ(Tokenizer::load(scratch.write("a.model", trained_model(320)))->vocab_size(), 320);
  const auto tiny =
      Tokenizer::load(scratch.write("b.model", train_tokenizer({"to be or not"}, 8192)));
  EXPECT_LT(tiny->vocab_size(), 400);
  EXPECT_EQ(tiny->decode(tiny->encode("anything, \u00e9ven this")), "anything, \u00e9ven this");
}

TEST(Tokenizer, AnAlphabetLargerThanTheVocabularyFallsBackToBytes) {
  const Scratch scratch;
  std::string text;
  for (int c = 0; c < 2000; ++c) {
    const int code = 0x4e00 + c;
    text += {static_cast<char>(0xE0 | (code >> 12)), static_cast<char>(0x80 | ((code >> 6) & 0x3F)),
             static_cast<char>(0x80 | (code & 0x3F))};
  }
  const auto tokenizer = Tokenizer::load(scratch.write("a.model", train_tokenizer({text}, 512)));
  EXPECT_LE(tokenizer->vocab_size(), 512);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
}

TEST(Tokenizer, WhatCannotBeUsedIsRefused) {
  const Scratch scratch;
  expect_refusal("cannot read", [&] { Tokenizer::load(scratch.path("none.model")); });
  expect_refusal("is not a SentencePiece model",
                 [&] { Tokenizer::load(scratch.write("foreign.model", "{\"model\": 1}")); });
  expect_refusal("is not a SentencePiece model",
                 [&] { Tokenizer::load(scratch.write("empty.model", "")); });
  const std::string model = trained_model();
  expect_refusal("is not a SentencePiece model, or is truncated", [&] {
    Tokenizer::load(scratch.write("cut.model", model.substr(0, model.size() / 2)));
  });
  // Pieces "<unk>" and "\0": what SentencePiece's trie cannot hold it throws.
  const std::string_view nul_piece("\x0A\x09\x0A\x05<unk>\x18\x02\x0A\x03\x0A\x01\0", 16);
  expect_refusal("is not a SentencePiece model",
                 [&] { Tokenizer::load(scratch.write("nul.model", std::string(nul_piece))); });
  // A model of bytes in which " T" is a control token: texts without it are encoded all the same.
  const auto seeds =
      std::filesystem::path(__FILE__).parent_path().parent_path() / "fuzz/seeds/tokenizer";
  const auto control_word = Tokenizer::load(seeds / "control_word.model");
  EXPECT_FALSE(control_word->encode("a").empty());
  expect_refusal("control_word.model cannot encode text", [&] { control_word->encode("To be"); });
  expect_refusal("vocabulary of at least 300, is 64", [] { train_tokenizer({"text"}, 64); });
  expect_refusal("only blank lines", [] { train_tokenizer({"\n\n"}, 400); });
  const auto tokenizer = Tokenizer::load(scratch.write("a.model", model));
  expect_refusal("token 50000 is outside", [&] { tokenizer->decode({1, 50000}); });
}

TEST(Tokenizer, EveryEncodedDocumentStartsWithBosOnAnyNumberOfThreads) {
  const Scratch scratch;
  const auto tokenizer = Tokenizer::load(scratch.write("a.model", trained_model()));
  std::vector<std::string> documents;
  for (int i = 0; i < 40; ++i) documents.push_back(verses(i, i));
  const auto encoded = encode_documents(*tokenizer, 77, documents, nullptr);
  ASSERT_EQ(encoded.size(), documents.size());
  for (size_t i = 0; i < documents.size(); ++i) {
    auto expected = tokenizer->encode(documents[i]);
    expected.insert(expected.begin(), 77);
    EXPECT_EQ(encoded[i], expected);
  }
}

}  // namespace
}  // namespace nanoflex::data
