#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace nanoflex {

/// What a piece of work asked of LibTorch.
struct Operations {
  int64_t dispatched = 0;  ///< operations, those that others call included
  /// The operation that made the first tensor [..., queries, keys], with its sizes; empty: none
  /// did.
  std::string matrix = {};
};

/// Counts LibTorch's operations while it lives, on every thread. One at a time.
class OperationWatch {
 public:
  /// Looks for tensors whose last two sizes are these: choose sizes that nothing else has.
  OperationWatch(int64_t queries, int64_t keys);
  ~OperationWatch();
  OperationWatch(const OperationWatch&) = delete;
  OperationWatch& operator=(const OperationWatch&) = delete;

  Operations so_far() const;

 private:
  uint64_t handle_;
};

}  // namespace nanoflex
