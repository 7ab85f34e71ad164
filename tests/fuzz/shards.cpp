// A token shard from a stranger ends in tokens below the vocabulary or a message.
#include "data/shard.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nanoflex;
  constexpr int64_t kVocabulary = 1000;
  static const InputFile file("tokens.bin");
  file.write(data, size);
  try {
    const auto tokens = data::Tokens::open(file.path().string(), kVocabulary);
    std::vector<int64_t> all(tokens->size());
    tokens->copy(0, tokens->size(), all.data());
    for (const int64_t token : all) {
      require(token >= 0 && token < kVocabulary, "a token beyond the vocabulary");
    }
    require(tokens->find(kVocabulary, 0) == tokens->size(), "found what is not there");
  } catch (const std::invalid_argument&) {
  }
  return 0;
}
