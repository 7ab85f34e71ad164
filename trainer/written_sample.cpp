#include "trainer/written_sample.h"

#include "trainer/attention_setup.h"
#include "trainer/generate.h"

namespace nanoflex {
namespace {

constexpr int64_t kTokens = 48, kTopK = 50;
constexpr double kTemperature = 0.8;

std::string written(const Gpt& model, const AttentionSetup& attention, const data::Dataset& dataset,
                    uint64_t seed) {
  std::vector<int32_t> tokens;
  const GenerateOptions options = {.tokens = kTokens,
                                   .temperature = kTemperature,
                                   .top_k = kTopK,
                                   .seed = seed,
                                   .allowed_vocab = dataset.tokenizer->vocab_size()};
  generate(model, attention, {dataset.bos_id}, options,
           [&](int64_t token) { tokens.push_back(static_cast<int32_t>(token)); });
  return dataset.tokenizer->decode(tokens);
}

}  // namespace

nlohmann::ordered_json written_samples(const Config& resolved, const Gpt& model,
                                       const data::Dataset& dataset, at::Device device,
                                       at::ScalarType dtype) {
  nlohmann::ordered_json samples = {{"temperature", kTemperature},
                                    {"top_k", kTopK},
                                    {"tokens", kTokens},
                                    {"texts", nlohmann::ordered_json::array()},
                                    {"none_because", nullptr}};
  if (!dataset.tokenizer) {
    samples["none_because"] = "the data is shards, and no tokenizer turns their tokens into text";
    return samples;
  }
  try {
    // Decoding asks more of a backend than training did (T != S): let the fastest that can answer.
    Config config = resolved;
    config.attention = "auto";
    AttentionSetup attention = choose_attention(config, device, dtype);
    attention.read_from(model);
    for (const uint64_t seed : {1, 2}) {
      const std::string text = written(model, attention, dataset, seed);
      samples["texts"].push_back({{"seed", seed}, {"text", text}});
    }
  } catch (const std::exception& problem) {  // a run that ended well is not to fail for this
    samples["none_because"] = problem.what();
  }
  return samples;
}

}  // namespace nanoflex
