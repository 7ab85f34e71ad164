// A SentencePiece model from a stranger ends in a tokenizer whose tokens are inside its vocabulary,
// or a message.
#include "data/tokenizer.h"

#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nanoflex;
  static const InputFile file("tokenizer.model");
  file.write(data, size);
  try {
    const auto tokenizer = data::Tokenizer::load(file.path().string(), 5000);
    const std::vector<int32_t> ids = tokenizer->encode("To be, or not to be \xE2\x96\x81\n\xFF!");
    for (const int32_t id : ids) {
      require(id >= 0 && id < tokenizer->vocab_size(), "a token beyond the vocabulary");
    }
    tokenizer->decode(ids);
    tokenizer->token_bytes();
    tokenizer->bos_id();
  } catch (const std::invalid_argument&) {
  }
  return 0;
}
