// The fused path for masks that are a band of keys around the query, and no score.
#include "attention/backends.h"
#include "attention/flex/band.h"
#include "attention/fused.h"

namespace nanoflex {
namespace {

std::string why_not_flash(const at::Tensor& q, const at::Tensor&, const at::Tensor&,
                          const Spec& spec) {
  const std::string reason = why_no_fused_kernels(q);
  if (!reason.empty()) return reason;
  const auto band = flex::band_of(spec.mask);
  if (!band) {
    return "mask '" + flex::to_text(spec.mask) + "' is not a band of keys around the query";
  }
  if (spec.score.defined()) {
    return "it takes no score expression ('" + flex::to_text(spec.score) + "')";
  }
  return "";
}

Attention flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const Spec& spec) {
  const flex::Band band = *flex::band_of(spec.mask);
  return attend_fused(q, k, v,
                      {.left = band.left.value_or(FusedOptions::kUnbounded),
                       .right = band.right.value_or(FusedOptions::kUnbounded),
                       .scale = scale_of(q, spec),
                       .dropout = spec.dropout,
                       .need_logsumexp = spec.need_logsumexp},
                      "flash");
}

}  // namespace

Backend flash_backend() { return {"flash", true, why_not_flash, flash_attention}; }

}  // namespace nanoflex
