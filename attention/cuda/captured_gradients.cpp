#include "attention/cuda/captured_gradients.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>

#include "attention/dropout.h"
#include "attention/flex/derivative.h"
#include "attention/flex/evaluate.h"
#include "attention/flex/tile_code.h"

namespace nanoflex::cuda {
namespace {

constexpr int64_t kMostPairs = int64_t{1} << 24;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Some query rows of all heads. Tensors are [B, H, rows, S] in fp32.
class Strip {
 public:
  Strip(const at::Tensor& q, const at::Tensor& k, const FusedOptions& options, flex::Range rows)
      : options_(options), rows_(rows), q_(of_rows(q)), k_(k) {
    evaluation = {.B = q.size(0),
                  .H = q.size(1),
                  .T = q.size(2),
                  .S = k.size(2),
                  .device = q.device(),
                  .score = products(q_, k) * options.scale,
                  .rows = rows};
  }

  flex::EvaluateOptions evaluation;

  /// d(loss)/d(changed score).
  at::Tensor d_score(const at::Tensor& v, const FusedResult& result, const at::Tensor& d_output,
                     const at::Tensor& d_logsumexp) const {
    const at::Tensor d_o = of_rows(d_output);
    at::Tensor delta = (d_o.to(at::kFloat) * of_rows(result.output).to(at::kFloat)).sum(-1, true);
    if (d_logsumexp.defined()) delta = delta - of_rows(d_logsumexp).unsqueeze(-1);
    const at::Tensor weight = weights(result);
    const at::Tensor d_score = weight * (d_weight(d_o, v) - delta);
    return d_score.masked_fill_(weight == 0, 0);
  }

 private:
  // d(loss)/d(weight), through dropout where there is some.
  at::Tensor d_weight(const at::Tensor& d_o, const at::Tensor& v) const {
    const at::Tensor d_kept = products(d_o, v);
    if (options_.dropout.probability == 0) return d_kept;
    return d_kept * dropout_factors(options_.dropout, evaluation.B, evaluation.H, rows_,
                                    evaluation.S, q_.device());
  }

  at::Tensor of_rows(const at::Tensor& x) const { return x.slice(2, rows_.begin, rows_.end); }

  // a b^T; the query heads of a key head are rows of one product.
  static at::Tensor products(const at::Tensor& a, const at::Tensor& b) {
    const int64_t B = a.size(0), H = a.size(1), rows = a.size(2), D = a.size(3);
    const at::Tensor packed = a.to(at::kFloat).reshape({B, b.size(1), H / b.size(1) * rows, D});
    return at::matmul(packed, b.to(at::kFloat).transpose(2, 3)).view({B, H, rows, b.size(2)});
  }

  at::Tensor weights(const FusedResult& result) const {
    at::Tensor exponent = flex::evaluate(options_.score, evaluation).to(at::kFloat);
    if (result.denominator.defined()) {  // of fp32: in two parts, which keep more digits
      for (const at::Tensor& part : result.denominator.unbind()) {
        exponent = exponent - of_rows(part).unsqueeze(-1);
      }
    } else {
      const at::Tensor logsumexp = of_rows(result.logsumexp).unsqueeze(-1);
      exponent = exponent - logsumexp.masked_fill(logsumexp == -kInfinity, kInfinity);
    }
    at::Tensor hidden = outside_band();
    if (options_.mask.defined()) {
      hidden = hidden.logical_or(flex::evaluate(options_.mask, evaluation).logical_not());
    }
    return exponent.exp().masked_fill(hidden, 0);
  }

  at::Tensor outside_band() const {
    const auto integers = at::TensorOptions(q_.device()).dtype(at::kLong);
    const int64_t offset = k_.size(2) - evaluation.T;
    const at::Tensor position = at::arange(rows_.begin + offset, rows_.end + offset, integers);
    const at::Tensor distance = at::arange(k_.size(2), integers) - position.unsqueeze(-1);
    return (distance < -options_.left).logical_or(distance > options_.right);
  }

  const FusedOptions& options_;
  const flex::Range rows_;
  const at::Tensor q_, k_;
};

// sum[indices] += x, where the indices broadcast to x: over what they do not depend on it is summed
// first. Indices that meet are added up in a fixed order.
void add_at(const at::Tensor& sum, const flex::Expression& read, const at::Tensor& x,
            const flex::EvaluateOptions& options) {
  c10::List<std::optional<at::Tensor>> indices;
  std::vector<int64_t> sizes(4, 1), summed;
  for (const flex::Expression& operand : read.node().operands) {
    const at::Tensor index = flex::evaluate(operand, options);
    for (int64_t i = 0; i < 4; ++i) sizes[i] = std::max(sizes[i], index.size(i));
    indices.push_back(index);
  }
  for (int64_t i = 0; i < 4; ++i) {
    if (sizes[i] == 1) summed.push_back(i);
  }
  const at::Tensor rest =
      summed.empty() ? x.to(at::kDouble) : x.sum(summed, /*keepdim=*/true, at::kDouble);
  if (indices.empty()) {
    sum.add_(rest.reshape(sum.sizes()));
  } else {
    sum.index_put_(indices, rest, /*accumulate=*/true);
  }
}

}  // namespace

std::vector<at::Tensor> captured_gradients(const at::Tensor& q, const at::Tensor& k,
                                           const at::Tensor& v, const FusedResult& result,
                                           const at::Tensor& d_output,
                                           const at::Tensor& d_logsumexp,
                                           const FusedOptions& options) {
  if (!options.score.defined()) return {};
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> tensors = flex::differentiable_tensors(options.score);
  const std::vector<flex::CapturedRead> reads = flex::captured_reads(options.score);
  if (tensors.empty()) return {};
  std::vector<at::Tensor> sums;
  for (const at::Tensor& one : tensors) {
    sums.push_back(at::zeros(one.sizes(), one.options().dtype(at::kDouble)));
  }
  const int64_t T = q.size(2), pairs_of_row = q.size(0) * q.size(1) * k.size(2);
  const int64_t step = std::clamp<int64_t>(kMostPairs / pairs_of_row, 1, T);
  for (int64_t row = 0; row < T; row += step) {
    const Strip strip(q, k, options, {row, std::min(row + step, T)});
    const at::Tensor d_score = strip.d_score(v, result, d_output, d_logsumexp);
    for (const flex::CapturedRead& read : reads) {
      for (size_t i = 0; i < tensors.size(); ++i) {
        if (!tensors[i].is_same(read.read.node().tensor)) continue;
        const at::Tensor slope = flex::evaluate(read.derivative, strip.evaluation);
        // Where nothing flows, an infinite derivative must not make it NaN.
        const at::Tensor flow = (d_score * slope).masked_fill_(d_score == 0, 0);
        add_at(sums[i], read.read, flow, strip.evaluation);
      }
    }
  }
  for (size_t i = 0; i < sums.size(); ++i) sums[i] = sums[i].to(tensors[i].scalar_type());
  return sums;
}

}  // namespace nanoflex::cuda
