#include "attention/dropout.h"

#include <ATen/Parallel.h>

#include "attention/philox.h"

namespace nanoflex {

at::Tensor dropout_factors(const Dropout& dropout, int64_t B, int64_t H, flex::Range rows,
                           int64_t S, at::Device device) {
  const uint32_t threshold = dropout_threshold(dropout.probability);
  const auto kept = static_cast<float>(1 / (1 - dropout.probability));
  const at::Tensor factors = at::empty({B, H, rows.size(), S}, at::kFloat);
  auto* data = factors.mutable_data_ptr<float>();
  at::parallel_for(0, B * H * rows.size(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t kv = 0; kv < S; kv += 4) {
        const PhiloxWords words = dropout_words(
            dropout.seed, static_cast<uint32_t>(row / rows.size()),
            static_cast<uint32_t>(rows.begin + row % rows.size()), static_cast<uint32_t>(kv));
        for (int64_t i = 0; i < std::min<int64_t>(4, S - kv); ++i) {
          data[row * S + kv + i] = words.word[i] < threshold ? 0 : kept;
        }
      }
    }
  });
  return factors.to(device);
}

}  // namespace nanoflex
