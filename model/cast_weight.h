#pragma once

#include <ATen/Functions.h>

#include <memory>

namespace nanoflex {

/// A weight and its copy in the dtype that products run in. The copy is made when it is first asked
/// for, and again when the weight has changed since, of which LibTorch keeps count. Copies of a
/// CastWeight share both.
class CastWeight {
 public:
  CastWeight() = default;
  CastWeight(at::Tensor value) : value_(std::move(value)) {}  // implicit: any tensor is a weight

  const at::Tensor& value() const { return value_; }

  /// The weight in `type`; its gradient reaches value().
  at::Tensor in(at::ScalarType type) const;
  /// The same for who takes the gradient of value() itself: not differentiable.
  at::Tensor copy_in(at::ScalarType type) const;

  /// For who writes all of value() and of this copy through pointers, and then says so: the bf16
  /// copy where one is in use, else undefined.
  at::Tensor bfloat16_copy() const;
  void written() const;
  /// For who writes value() in ways that LibTorch does not count, or records what it does to replay
  /// it (trainer/recorded_step.h): what casts anew is then part of it.
  void renew_copy() const;

 private:
  struct Copy {
    at::Tensor tensor;
    int64_t version = 0;  // of value_, when it was copied
  };
  at::Tensor value_;
  std::shared_ptr<Copy> copy_ = std::make_shared<Copy>();
};

}  // namespace nanoflex
