#pragma once

#include <nlohmann/json.hpp>

#include "data/dataset.h"
#include "model/gpt.h"
#include "trainer/config.h"

namespace nanoflex {

/// A few dozen tokens from a trained model, for the record: {temperature, top_k, tokens, texts:
/// [{seed, text}], none_because}. Drawn from generators of their own, so that nothing else is drawn
/// differently. Where there can be no text, `texts` is empty and `none_because` says why.
nlohmann::ordered_json written_samples(const Config& resolved, const Gpt& model,
                                       const data::Dataset& dataset, at::Device device,
                                       at::ScalarType dtype);

}  // namespace nanoflex
