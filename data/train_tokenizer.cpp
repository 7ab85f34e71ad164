#include <sentencepiece_trainer.h>

#include <algorithm>
#include <stdexcept>
#include <unordered_map>

#include "data/tokenizer.h"
#include "data/utf8.h"

namespace nanoflex::data {

namespace {

constexpr int64_t kFixedPieces = 259;  // 256 bytes, BOS, unknown, newline
constexpr int64_t kSmallestVocabulary = 300;
constexpr size_t kSampleBytes = size_t{16} << 20;
constexpr size_t kLongestSentence =
    4000;  // SentencePiece skips what is over its limit of 4192 bytes

// The trainer drops a whole sentence for these (its marks for unknown, piece boundary and space),
// and a newline is a piece of its own.
constexpr std::string_view kBreaks[] = {"\n", "\t", std::string_view("\0", 1), "\xE2\x96\x85",
                                        "\xE2\x96\x81"};

std::pair<size_t, size_t> next_break(std::string_view text) {
  size_t at = text.size(), size = 0;
  for (const std::string_view mark : kBreaks) {
    const size_t found = text.substr(0, at).find(mark);
    if (found < at) at = found, size = mark.size();
  }
  return {at, size};
}

void add_line(std::string_view line, std::vector<std::string>& sentences) {
  while (!line.empty()) {
    const auto [at, mark_size] = next_break(line);
    std::string_view sentence = line.substr(0, at);
    line.remove_prefix(at + mark_size);
    while (!sentence.empty()) {
      const size_t size = character_start(sentence, kLongestSentence);
      sentences.emplace_back(sentence.substr(0, size));
      sentence.remove_prefix(size);
    }
  }
}

// All lines, or evenly spread ones up to kSampleBytes.
std::vector<std::string> sample_sentences(const std::vector<std::string_view>& documents) {
  size_t total = 0, seen = 0, taken = 0;
  for (const auto& document : documents) total += document.size();
  const double share = total <= kSampleBytes ? 1 : static_cast<double>(kSampleBytes) / total;
  std::vector<std::string> sentences;
  for (std::string_view text : documents) {
    while (!text.empty()) {
      const size_t size = std::min({text.find('\n'), text.size() - 1, kLongestSentence - 1}) + 1;
      const std::string_view line =
          text.substr(0, std::max<size_t>(character_start(text, size), 1));
      text.remove_prefix(line.size());
      if (share == 1 || static_cast<double>(taken) <= share * static_cast<double>(seen)) {
        add_line(line, sentences);
        taken += line.size();
      }
      seen += line.size();
    }
  }
  return sentences;
}

// Calls visit(character) for each.
template <typename Visit>
void for_each_character(std::string_view text, const Visit& visit) {
  for (size_t begin = 0, end = 0; begin < text.size(); begin = end) {
    end = begin + 1;
    while (end < text.size() && character_start(text, end) != end) ++end;
    visit(text.substr(begin, end - begin));
  }
}

// Breaks sentences at the rarer characters until no more than `limit` different ones are left: each
// one takes a piece of the vocabulary, and the rare ones have their bytes.
void limit_alphabet(std::vector<std::string>& sentences, size_t limit) {
  std::unordered_map<std::string_view, int64_t> counts;
  for (const auto& sentence : sentences) {
    for_each_character(sentence, [&](std::string_view character) { ++counts[character]; });
  }
  if (counts.size() <= limit) return;
  std::vector<std::pair<int64_t, std::string_view>> order;
  for (const auto& [character, count] : counts) order.emplace_back(-count, character);
  std::nth_element(order.begin(), order.begin() + limit, order.end());
  for (auto rare = order.begin() + limit; rare != order.end(); ++rare) counts[rare->second] = 0;
  std::vector<std::string> kept;
  for (const auto& sentence : sentences) {
    kept.emplace_back();
    for_each_character(sentence, [&](std::string_view character) {
      if (counts[character] > 0) {
        kept.back() += character;
      } else if (!kept.back().empty()) {
        kept.emplace_back();
      }
    });
    if (kept.back().empty()) kept.pop_back();
  }
  sentences = std::move(kept);
}

}  // namespace

std::string train_tokenizer(const std::vector<std::string_view>& documents, int64_t vocab_size) {
  if (vocab_size < kSmallestVocabulary) {
    throw std::invalid_argument(
        "[data] a tokenizer needs a vocabulary of at least " + std::to_string(kSmallestVocabulary) +
        ", is " + std::to_string(vocab_size) + "; raise tokenizer_vocab_size and vocab_size");
  }
  auto sentences = sample_sentences(documents);
  limit_alphabet(sentences, static_cast<size_t>(vocab_size - kFixedPieces) / 2);
  if (sentences.empty())
    throw std::invalid_argument("[data] the text holds only blank lines; name another with --data");
  std::unordered_map<std::string, std::string> options{
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(vocab_size)},
      {"hard_vocab_limit", "false"},
      {"byte_fallback", "true"},
      {"character_coverage", "0.9999"},
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"user_defined_symbols", "\n"},
      {"bos_id", "0"},
      {"unk_id", "1"},
      {"eos_id", "-1"},
      {"max_sentence_length", std::to_string(kLongestSentence + 4)},
      {"minloglevel", "3"},
  };
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, sentences, &model);
  if (!status.ok()) {
    throw std::runtime_error("[data] cannot train a tokenizer: " + status.ToString());
  }
  return model;
}

}  // namespace nanoflex::data
