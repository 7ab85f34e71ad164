// Text -> tokens with all cores.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace nanoflex::data {

// The tokens of each document, BOS first. Tells `log` (may be null) how far it is, from the second
// second on.
std::vector<std::vector<int32_t>> encode_documents(
    const Tokenizer& tokenizer, int64_t bos_id, const std::vector<std::string>& documents,
    const std::function<void(const std::string&)>& log);

}  // namespace nanoflex::data
