#include "trainer/updates_cpu.h"

#include <ATen/Parallel.h>
#include <ATen/ceil_div.h>

#include <algorithm>

#include "attention/units.h"

namespace nanoflex {
namespace {

constexpr int64_t kPiece = 16384;  // elements that a thread takes at a time

// Calls body(tensor, piece) for each piece of each tensor. pieces: how many each tensor has.
template <typename Body>
void for_pieces(const std::vector<int64_t>& pieces, const Body& body) {
  std::vector<int64_t> ends;  // of each tensor, counted over all of them
  for (const int64_t count : pieces) ends.push_back(count + (ends.empty() ? 0 : ends.back()));
  const int64_t all = ends.empty() ? 0 : ends.back();
  const int64_t threads = std::min<int64_t>(all, at::get_num_threads());
  for_each_unit(all, threads, [&](int64_t i, int64_t) {
    const size_t tensor = std::upper_bound(ends.begin(), ends.end(), i) - ends.begin();
    body(tensor, i - (ends[tensor] - pieces[tensor]));
  });
}

uint16_t* bits(const at::Tensor& x) {
  return x.defined() ? static_cast<uint16_t*>(x.mutable_data_ptr()) : nullptr;
}

// A tensor's update, in pieces of whole rows.
class AdamWRows {
 public:
  AdamWRows(const AdamWTensor& tensor,
            void (*kernel)(const cpu::AdamWFactors&, const cpu::AdamWSpan&))
      : factors_(tensor.factors), kernel_(kernel), sparse_(tensor.gradient.is_sparse()) {
    const at::Tensor& gradient = tensor.gradient;
    gradient_ = (sparse_ ? gradient._values() : gradient).contiguous();
    width_ = sparse_ ? tensor.value[0].numel() : 1;
    rows_ = tensor.value.numel() / width_;
    if (sparse_) given_ = gradient._indices()[0].contiguous();
    span_ = {.count = 0,
             .gradient = gradient_.const_data_ptr<float>(),
             .value = tensor.value.mutable_data_ptr<float>(),
             .mean = tensor.mean.mutable_data_ptr<float>(),
             .square = tensor.square.mutable_data_ptr<float>(),
             .copy = bits(tensor.copy)};
  }

  int64_t pieces() const { return at::ceil_div(rows_, rows_per_piece()); }

  void run(int64_t piece) const {
    const int64_t begin = piece * rows_per_piece();
    const int64_t end = std::min(begin + rows_per_piece(), rows_);
    if (!sparse_) return update(begin, end, span_.gradient + begin);
    const auto* const first = given_.const_data_ptr<int64_t>();
    const auto* const last = first + given_.numel();
    const auto* next = std::lower_bound(first, last, begin);
    for (int64_t row = begin; row < end;) {  // neighbours without a gradient, then some with one
      const int64_t without = next < last ? std::min(*next, end) : end;
      update(row, without, nullptr);
      const float* const gradient = span_.gradient + (next - first) * width_;
      for (row = without; row < end && next < last && *next == row; ++row) ++next;
      update(without, row, gradient);
    }
  }

 private:
  int64_t rows_per_piece() const { return std::max<int64_t>(1, kPiece / width_); }

  void update(int64_t begin, int64_t end, const float* gradient) const {
    if (begin == end) return;
    const int64_t at = begin * width_;
    kernel_(factors_, {.count = (end - begin) * width_,
                       .gradient = gradient,
                       .value = span_.value + at,
                       .mean = span_.mean + at,
                       .square = span_.square + at,
                       .copy = span_.copy ? span_.copy + at : nullptr});
  }

  const cpu::AdamWFactors factors_;
  void (*const kernel_)(const cpu::AdamWFactors&, const cpu::AdamWSpan&);
  const bool sparse_;
  at::Tensor gradient_, given_;  // given_: [rows that have one], ascending
  int64_t width_ = 1, rows_ = 0;
  cpu::AdamWSpan span_;
};

}  // namespace

void adamw_cpu(const std::vector<AdamWTensor>& tensors, const cpu::ModelKernelSet& kernels) {
  std::vector<AdamWRows> all;
  std::vector<int64_t> pieces;
  for (const AdamWTensor& tensor : tensors) {
    pieces.push_back(all.emplace_back(tensor, kernels.updates.adamw).pieces());
  }
  for_pieces(pieces, [&](size_t tensor, int64_t piece) { all[tensor].run(piece); });
}

at::Tensor take_momentum_cpu(const at::Tensor& momentum, const std::vector<at::Tensor>& gradients,
                             double weight, const cpu::ModelKernelSet& kernels) {
  const at::Tensor direction = at::empty_like(momentum, momentum.options().dtype(at::kBFloat16));
  const int64_t size = momentum[0].numel();
  std::vector<at::Tensor> contiguous;
  for (const at::Tensor& gradient : gradients) contiguous.push_back(gradient.contiguous());
  const std::vector<int64_t> pieces(gradients.size(), at::ceil_div(size, kPiece));
  for_pieces(pieces, [&](size_t matrix, int64_t piece) {
    const int64_t begin = piece * kPiece, at = static_cast<int64_t>(matrix) * size + begin;
    kernels.updates.momentum({.count = std::min(kPiece, size - begin),
                              .weight = static_cast<float>(weight),
                              .gradient = contiguous[matrix].const_data_ptr<float>() + begin,
                              .momentum = momentum.mutable_data_ptr<float>() + at,
                              .direction = bits(direction) + at});
  });
  return direction;
}

void move_cpu(const std::vector<CastWeight>& weights, const at::Tensor& direction, double rate,
              const cpu::ModelKernelSet& kernels) {
  const at::Tensor directions = direction.contiguous();
  const int64_t size = directions[0].numel();
  const std::vector<int64_t> pieces(weights.size(), at::ceil_div(size, kPiece));
  for_pieces(pieces, [&](size_t matrix, int64_t piece) {
    const int64_t begin = piece * kPiece;
    uint16_t* const copy = bits(weights[matrix].bfloat16_copy());
    kernels.updates.move(
        {.count = std::min(kPiece, size - begin),
         .rate = static_cast<float>(rate),
         .direction = bits(directions) + static_cast<int64_t>(matrix) * size + begin,
         .value = weights[matrix].value().mutable_data_ptr<float>() + begin,
         .copy = copy ? copy + begin : nullptr});
  });
  for (const CastWeight& weight : weights) weight.written();
}

}  // namespace nanoflex
