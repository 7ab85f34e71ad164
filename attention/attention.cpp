#include "attention/attention.h"

#include <ATen/record_function.h>

#include <cmath>
#include <limits>
#include <sstream>
#include <stdexcept>

#include "attention/backends.h"
#include "attention/nearest.h"
#include "attention/registry.h"

namespace nanoflex {
namespace {

constexpr int64_t kMaxHeadDim = 256;

template <typename... Parts>
void require(bool holds, const Parts&... parts) {
  if (holds) return;
  std::ostringstream message;
  ((message << "[attention] ") << ... << parts);
  throw std::invalid_argument(message.str());
}

void check_tensors(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const std::pair<const char*, const at::Tensor*> tensors[] = {{"q", &q}, {"k", &k}, {"v", &v}};
  for (const auto& [name, tensor] : tensors) {
    require(tensor->defined(), name, " is undefined");
    require(tensor->dim() == 4, name,
            " must have 4 dimensions [batch, heads, length, head_dim], is ", tensor->sizes());
    require(tensor->numel() > 0, name, " must not be empty, is ", tensor->sizes());
    require(tensor->scalar_type() == q.scalar_type(), name, " must have q's dtype ",
            q.scalar_type(), ", is ", tensor->scalar_type());
    require(tensor->device() == q.device(), name, " must be on q's device ", q.device(), ", is on ",
            tensor->device());
  }
  const at::ScalarType dtype = q.scalar_type();
  require(
      dtype == at::kFloat || dtype == at::kDouble || dtype == at::kBFloat16 || dtype == at::kHalf,
      "dtype must be float32, bfloat16, float16 or float64, is ", dtype);
}

void check_shapes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  require(k.sizes() == v.sizes(), "k and v must have one shape, are ", k.sizes(), " and ",
          v.sizes());
  require(k.size(0) == q.size(0), "k must have q's batch size ", q.size(0), ", has ", k.size(0));
  require(k.size(3) == q.size(3), "k must have q's head_dim ", q.size(3), ", has ", k.size(3));
  require(q.size(3) <= kMaxHeadDim, "head_dim must be at most ", kMaxHeadDim, ", is ", q.size(3));
  require(q.size(1) % k.size(1) == 0, "q's heads must be a multiple of k's, are ", q.size(1),
          " and ", k.size(1));
}

void check_bound(const char* what, const flex::Expression& expression) {
  const std::vector<std::string> missing = flex::free_tensors(expression);
  if (missing.empty()) return;
  require(false, what, " '", flex::to_text(expression),
          "' reads tensors that are not bound: ", join(missing), "; bind() them");
}

// Scores are computed in fp32, those of fp64 inputs in fp64.
void check_scale(double scale, at::ScalarType dtype) {
  using Float = std::numeric_limits<float>;
  require(std::isfinite(scale) && scale > 0, "scale must be finite and above 0, is ", scale);
  require(dtype == at::kDouble || (scale >= Float::denorm_min() && scale <= Float::max()),
          "scale must be finite and above 0 in float32, is ", scale);
}

void check_spec(const Spec& spec, at::ScalarType dtype) {
  require(spec.mask.defined(), "the mask is undefined; use full()");
  check_bound("mask", flex::require_mask(spec.mask));
  if (spec.score.defined()) check_bound("score", flex::require_score(spec.score));
  if (spec.scale) check_scale(*spec.scale, dtype);
  require(spec.block_size > 0 && spec.block_size % 16 == 0,
          "block_size must be a positive multiple of 16, is ", spec.block_size);
  const double dropped = spec.dropout.probability;
  require(dropped >= 0 && dropped < 1, "dropout must be at least 0 and below 1, is ", dropped);
}

}  // namespace

double scale_of(const at::Tensor& q, const Spec& spec) {
  return spec.scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))));
}

Attention attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Spec& spec,
                 const std::string& backend) {
  RECORD_USER_SCOPE(kAttentionScope);
  check_tensors(q, k, v);
  check_shapes(q, k, v);
  check_spec(spec, q.scalar_type());
  return choose_backend(backend, q, k, v, spec).forward(q, k, v, spec);
}

}  // namespace nanoflex
