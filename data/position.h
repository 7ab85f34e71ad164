// Reads a packing's saved position, refusing what does not fit the data.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace nanoflex::data {

class PositionReader {
 public:
  // Throws std::invalid_argument unless `position` is one of `packing` over as many tokens.
  PositionReader(const nlohmann::json& position, const std::string& packing, int64_t tokens);

  // The number under `key`. Throws std::invalid_argument unless it is a whole number >= 0, for
  // in_data at most the number of tokens.
  int64_t at_least_zero(const std::string& key) const;
  int64_t in_data(const std::string& key) const;
  [[noreturn]] void refuse(const std::string& why) const;

 private:
  const nlohmann::json& position_;
  int64_t tokens_;
};

}  // namespace nanoflex::data
