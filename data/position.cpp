#include "data/position.h"

#include <stdexcept>

namespace nanoflex::data {

PositionReader::PositionReader(const nlohmann::json& position, const std::string& packing,
                               int64_t tokens)
    : position_(position), tokens_(tokens) {
  if (!position.is_object()) refuse("is not an object");
  if (position.value("packing", nlohmann::json()) != packing) {
    refuse("is of packing " + position.value("packing", nlohmann::json()).dump() + ", not \"" +
           packing + "\"");
  }
  if (at_least_zero("tokens") != tokens) {
    refuse("is in data of " + std::to_string(at_least_zero("tokens")) +
           " tokens, and this data has " + std::to_string(tokens));
  }
}

int64_t PositionReader::at_least_zero(const std::string& key) const {
  const auto found = position_.find(key);
  if (found == position_.end() || !found->is_number_integer() || found->get<int64_t>() < 0) {
    refuse("needs a whole number `" + key + "` of at least 0");
  }
  return found->get<int64_t>();
}

int64_t PositionReader::in_data(const std::string& key) const {
  const int64_t value = at_least_zero(key);
  if (value > tokens_) {
    refuse("`" + key + "` " + std::to_string(value) + " is beyond the " + std::to_string(tokens_) +
           " tokens of this data");
  }
  return value;
}

void PositionReader::refuse(const std::string& why) const {
  throw std::invalid_argument("[data] the saved position " + why +
                              "; continue with the data and packing it was saved with");
}

}  // namespace nanoflex::data
