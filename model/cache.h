#pragma once

#include <ATen/Functions.h>

#include <utility>
#include <vector>

namespace nanoflex {

/// Keys and values of the tokens seen so far, for decoding: room for a fixed number of tokens.
class KeyValueCache {
 public:
  struct Options {
    int64_t batch, n_layer, n_kv_head, head_dim, capacity;
    at::Device device = at::kCPU;
    at::ScalarType dtype = at::kFloat;
  };
  explicit KeyValueCache(const Options& options);

  /// Tokens held in every layer.
  int64_t length() const { return length_; }
  int64_t capacity() const { return keys_.front().size(2); }

  /// Writes k, v: [B, H_kv, T, D] behind the tokens held and returns all of the layer's keys and
  /// values, [B, H_kv, length + T, D]. Throws std::invalid_argument when the cache is full.
  std::pair<at::Tensor, at::Tensor> append(int64_t layer, const at::Tensor& k, const at::Tensor& v);

  /// Counts the T tokens that every layer has appended.
  void advance(int64_t tokens) { length_ += tokens; }

 private:
  std::vector<at::Tensor> keys_, values_;  // a layer each: [B, H_kv, capacity, D]
  int64_t length_ = 0;
};

}  // namespace nanoflex
