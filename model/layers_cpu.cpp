#include "model/layers_cpu.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>

#include "model/cpu/dispatch.h"

namespace nanoflex {
namespace {

constexpr int64_t kSerialElements = 16384;  // below, waking the threads costs more

cpu::NormRows rows_of(const at::Tensor& x, const Rotation& rotation) {
  cpu::NormRows rows{.C = x.size(-1), .epsilon = std::numeric_limits<float>::epsilon()};
  if (!rotation.cos.defined()) return rows;
  rows.cos = rotation.cos.const_data_ptr<float>();
  rows.sin = rotation.sin.const_data_ptr<float>();
  rows.heads = x.size(2);
  rows.positions = x.size(1);
  return rows;
}

template <typename Body>
void for_rows(const at::Tensor& x, const Body& body) {
  const int64_t C = x.size(-1);
  at::parallel_for(0, x.numel() / C, std::max<int64_t>(1, kSerialElements / C), body);
}

// Whole cache lines for each thread.
template <typename Body>
void for_elements(const at::Tensor& x, const Body& body) {
  constexpr int64_t kPiece = 1024;
  const int64_t pieces = (x.numel() + kPiece - 1) / kPiece;
  at::parallel_for(0, pieces, kSerialElements / kPiece, [&](int64_t first, int64_t last) {
    const int64_t begin = first * kPiece;
    body(begin * x.element_size(), std::min(x.numel(), last * kPiece) - begin);
  });
}

const char* bytes_of(const at::Tensor& x) { return static_cast<const char*>(x.const_data_ptr()); }
char* writable(const at::Tensor& x) { return static_cast<char*>(x.mutable_data_ptr()); }

}  // namespace

NormResult norm_cpu(const at::Tensor& x, const Rotation& rotation,
                    const cpu::ModelKernelSet& kernels) {
  const cpu::NormRows rows = rows_of(x, rotation);
  const NormResult result = {at::empty_like(x),
                             at::empty({x.numel() / rows.C}, x.options().dtype(at::kFloat))};
  for_rows(x, [&](int64_t begin, int64_t end) {
    cpu::of_dtype(kernels, x)
        .layers.norm(rows, x.const_data_ptr(), writable(result.y),
                     result.scale.mutable_data_ptr<float>(), begin, end);
  });
  return result;
}

at::Tensor norm_backward_cpu(const NormResult& result, const at::Tensor& dy,
                             const Rotation& rotation, const cpu::ModelKernelSet& kernels) {
  const at::Tensor& y = result.y;
  const cpu::NormRows rows = rows_of(y, rotation);
  const at::Tensor dx = at::empty_like(y);
  for_rows(y, [&](int64_t begin, int64_t end) {
    cpu::of_dtype(kernels, y)
        .layers.norm_backward(rows, y.const_data_ptr(), result.scale.const_data_ptr<float>(),
                              dy.const_data_ptr(), writable(dx), begin, end);
  });
  return dx;
}

at::Tensor relu_squared_cpu(const at::Tensor& x, const cpu::ModelKernelSet& kernels) {
  const at::Tensor y = at::empty_like(x);
  for_elements(x, [&](int64_t at, int64_t count) {
    cpu::of_dtype(kernels, x).layers.relu_squared(bytes_of(x) + at, writable(y) + at, count);
  });
  return y;
}

at::Tensor relu_squared_backward_cpu(const at::Tensor& x, const at::Tensor& dy,
                                     const cpu::ModelKernelSet& kernels) {
  const at::Tensor dx = at::empty_like(x);
  for_elements(x, [&](int64_t at, int64_t count) {
    cpu::of_dtype(kernels, x)
        .layers.relu_squared_backward(bytes_of(x) + at, bytes_of(dy) + at, writable(dx) + at,
                                      count);
  });
  return dx;
}

void soft_cap_cpu(const at::Tensor& x, double cap, const at::Tensor& y,
                  const cpu::ModelKernelSet& kernels) {
  for_rows(x, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      cpu::of_dtype(kernels, x)
          .layers.soft_cap(bytes_of(x) + row * x.stride(0) * x.element_size(),
                           y.mutable_data_ptr<float>() + row * y.stride(0), static_cast<float>(cap),
                           x.size(1));
    }
  });
}

}  // namespace nanoflex
