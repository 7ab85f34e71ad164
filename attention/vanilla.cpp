#include <ATen/TensorOperators.h>

#include <limits>

#include "attention/backends.h"
#include "attention/flex/evaluate.h"

namespace nanoflex {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

bool is_full(const flex::Expression& mask) { return flex::equal(mask, flex::full()); }

flex::EvaluateOptions evaluate_options(const at::Tensor& scores) {
  return {.B = scores.size(0),
          .H = scores.size(1),
          .T = scores.size(2),
          .S = scores.size(3),
          .device = scores.device()};
}

// scores: [B, H, T, S]. Masked pairs are hidden from the score expression too: what it makes of
// them, were it NaN, never reaches q and k.
at::Tensor mask_and_change(at::Tensor scores, const Spec& spec) {
  flex::EvaluateOptions options = evaluate_options(scores);
  at::Tensor hidden;
  if (!is_full(spec.mask)) hidden = flex::evaluate(spec.mask, options).logical_not();
  if (spec.score.defined()) {
    options.score = hidden.defined() ? scores.masked_fill(hidden, 0) : scores;
    scores = flex::evaluate(spec.score, options).to(scores.scalar_type()).expand_as(scores);
  }
  return hidden.defined() ? scores.masked_fill(hidden, kMinusInfinity) : scores;
}

// Rows that see nothing are taken out before the logarithm, so that their gradient is 0 and not
// NaN.
at::Tensor safe_logsumexp(const at::Tensor& scores) {
  const at::Tensor blind = scores.detach().amax(-1) == kMinusInfinity;
  return at::logsumexp(scores.masked_fill(blind.unsqueeze(-1), 0), -1)
      .masked_fill(blind, kMinusInfinity);
}

std::string runs_everything(const at::Tensor&, const at::Tensor&, const at::Tensor&, const Spec&) {
  return "";
}

}  // namespace

Attention attend_plainly(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const Spec& spec) {
  const int64_t B = q.size(0), H = q.size(1), T = q.size(2), D = q.size(3);
  const int64_t H_kv = k.size(1), S = k.size(2), G = H / H_kv;
  const at::ScalarType statistics = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;

  // The G query heads of a key head are rows of one product, so k and v are never repeated.
  const at::Tensor rows = q.reshape({B, H_kv, G * T, D});
  const at::Tensor products = at::matmul(rows, k.transpose(-2, -1)).view({B, H, T, S});
  const at::Tensor scores = mask_and_change(products.to(statistics) * scale_of(q, spec), spec);
  at::Tensor weights = at::_safe_softmax(scores, -1);
  if (spec.dropout.probability > 0) {
    weights = weights * dropout_factors(spec.dropout, B, H, {0, T}, S, q.device());
  }
  weights = weights.to(v.scalar_type());

  Attention result;
  result.output = at::matmul(weights.view({B, H_kv, G * T, S}), v).view({B, H, T, D});
  if (spec.need_logsumexp) result.logsumexp = safe_logsumexp(scores);
  return result;
}

Backend vanilla_backend() { return {"vanilla", false, runs_everything, attend_plainly}; }

}  // namespace nanoflex
