#include "attention/backends.h"

namespace nanoflex {
namespace {

std::string why_not_sdpa(const at::Tensor& q, const at::Tensor& k, const at::Tensor&,
                         const Spec& spec) {
  const bool causal = flex::equal(spec.mask, flex::causal());
  if (!causal && !flex::equal(spec.mask, flex::full())) {
    return "mask '" + flex::to_text(spec.mask) + "' is neither 'causal' nor 'full'";
  }
  if (spec.score.defined()) {
    return "it takes no score expression ('" + flex::to_text(spec.score) + "')";
  }
  if (spec.dropout.probability > 0) return "its dropout has random bits of its own";
  if (spec.need_logsumexp) return "it does not give the logsumexp";
  const int64_t T = q.size(2), S = k.size(2);
  if (causal && T != S && T != 1) {
    return "with mask 'causal' it needs as many queries as keys, or one query (T is " +
           std::to_string(T) + ", S is " + std::to_string(S) + ")";
  }
  return "";
}

Attention sdpa_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const Spec& spec) {
  // One query stands last and sees every key; ATen would put it first.
  const bool causal = q.size(2) > 1 && flex::equal(spec.mask, flex::causal());
  const bool grouped = q.size(1) != k.size(1);
  return {at::scaled_dot_product_attention(q, k, v, /*attn_mask=*/{}, /*dropout_p=*/0.0, causal,
                                           scale_of(q, spec), grouped),
          {}};
}

}  // namespace

Backend sdpa_backend() { return {"sdpa", false, why_not_sdpa, sdpa_attention}; }

}  // namespace nanoflex
