#pragma once

#include "data/packing.h"

namespace nanoflex::data {

// Step i takes the next B*T + 1 tokens, inputs all but the last, targets all but the first, and
// moves on by B*T + 1. When fewer remain, the next epoch starts at token 0.
class StreamPacking : public Packing {
 public:
  StreamPacking(std::shared_ptr<const Tokens> tokens, const LoaderOptions& options);
  void next(int64_t* inputs, int64_t* targets) override;
  nlohmann::json position() const override;
  void restore(const nlohmann::json& position) override;

 private:
  std::shared_ptr<const Tokens> tokens_;
  std::vector<int64_t> window_;  // B*T + 1 tokens
  int64_t epoch_ = 0, cursor_ = 0;
};

}  // namespace nanoflex::data
