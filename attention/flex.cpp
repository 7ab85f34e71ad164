// The fused path for any mask and score: what is a band of keys around the query, or the query's
// group of keys, is left to the kernels, as for flash; the rest becomes a block mask and code that
// runs on tiles.
#include "attention/backends.h"
#include "attention/flex/band.h"
#include "attention/flex/cuda_source.h"
#include "attention/flex/key_ranges.h"
#include "attention/flex/remembered.h"
#include "attention/flex/simplify.h"
#include "attention/fused.h"

namespace nanoflex {
namespace {

// As flex::BandAndRest and flex::RangesAndRest, remembered.
struct KeptBand {
  flex::Band band;
  flex::WeakExpression rest;
};
struct KeptRanges {
  at::Tensor ranges;
  flex::WeakExpression rest;
};

FusedOptions without_blocks(const at::Tensor& q, const Spec& spec) {
  static flex::Remembered<KeptBand> masks;
  const auto mask = masks.get({spec.mask}, {}, [&] {
    const flex::BandAndRest split = flex::split_band(flex::simplify(spec.mask));
    return std::make_shared<const KeptBand>(KeptBand{split.band, flex::WeakExpression(split.rest)});
  });
  return {.left = mask->band.left.value_or(FusedOptions::kUnbounded),
          .right = mask->band.right.value_or(FusedOptions::kUnbounded),
          .scale = scale_of(q, spec),
          .dropout = spec.dropout,
          .mask = mask->rest.lock(),
          .score = spec.score,
          .need_logsumexp = spec.need_logsumexp};
}

std::string why_not_flex(const at::Tensor& q, const at::Tensor& k, const at::Tensor&,
                         const Spec& spec) {
  const std::string reason = why_no_fused_kernels(q);
  if (!reason.empty()) return reason;
  const FusedOptions options = without_blocks(q, spec);
  const std::string code = flex::why_no_tile_code(tile_code_options(q, k, options));
  if (!code.empty() || q.is_cpu()) return code;
  return flex::why_no_cuda_source(options.mask, options.score, q.device());
}

Attention flex_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const Spec& spec) {
  return attend_fused(q, k, v, fused_options(q, k, spec), "flex");
}

}  // namespace

FusedOptions fused_options(const at::Tensor& q, const at::Tensor& k, const Spec& spec) {
  FusedOptions options = without_blocks(q, spec);
  const int64_t B = q.size(0), S = k.size(2);
  if (options.mask.defined() && q.is_cpu() && q.size(2) <= S) {
    static flex::Remembered<KeptRanges> masks;
    const auto mask = masks.get({options.mask}, {B, S}, [&] {
      const flex::RangesAndRest split = flex::split_ranges(options.mask, B, S);
      return std::make_shared<const KeptRanges>(
          KeptRanges{split.ranges, flex::WeakExpression(split.rest)});
    });
    options.ranges = mask->ranges;
    options.mask = mask->rest.lock();
  }
  if (options.mask.defined()) {
    options.blocks = flex::block_mask(
        options.mask,
        {.B = B, .H = q.size(1), .T = q.size(2), .S = S, .block_size = spec.block_size});
  }
  return options;
}

Backend flex_backend() { return {"flex", true, why_not_flex, flex_attention}; }

}  // namespace nanoflex
