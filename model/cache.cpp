#include "model/cache.h"

#include <stdexcept>

namespace nanoflex {

KeyValueCache::KeyValueCache(const Options& options) {
  const auto kind = at::TensorOptions().dtype(options.dtype).device(options.device);
  for (int64_t layer = 0; layer < options.n_layer; ++layer) {
    for (auto* store : {&keys_, &values_}) {
      store->push_back(
          at::empty({options.batch, options.n_kv_head, options.capacity, options.head_dim}, kind));
    }
  }
}

std::pair<at::Tensor, at::Tensor> KeyValueCache::append(int64_t layer, const at::Tensor& k,
                                                        const at::Tensor& v) {
  const int64_t end = length_ + k.size(2);
  if (end > capacity()) {
    throw std::invalid_argument("[model] the key/value cache holds " + std::to_string(capacity()) +
                                " tokens, " + std::to_string(end) +
                                " were given; make it larger or give fewer tokens");
  }
  keys_[layer].narrow(2, length_, k.size(2)).copy_(k);
  values_[layer].narrow(2, length_, v.size(2)).copy_(v);
  return {keys_[layer].narrow(2, 0, end), values_[layer].narrow(2, 0, end)};
}

}  // namespace nanoflex
