#include "model/head.h"

#include <ATen/TensorOperators.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <stdexcept>

#include "attention/differentiated_once.h"
#include "model/cpu/dispatch.h"
#include "model/cuda/head_cuda.h"
#include "model/head_cpu.h"
#include "model/layers_cpu.h"

namespace nanoflex {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kChunkElements = int64_t{256} * 50304;  // logits alive at once: 51 MB in fp32
constexpr int64_t kTileElements = int64_t{1} << 21;       // logits made at once: 8 MB in fp32

at::ScalarType accumulation_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

void check_shapes(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets) {
  if (x.dim() == 2 && weight.dim() == 2 && targets.dim() == 1 && weight.size(0) > 0 &&
      weight.size(1) == x.size(1) && targets.size(0) == x.size(0)) {
    return;
  }
  throw std::invalid_argument(c10::str(
      "[model] the head takes x [N, C], weight [V, C] with V >= 1 ", "and targets [N], is given ",
      x.sizes(), ", ", weight.sizes(), " and ", targets.sizes()));
}

// The kernels write where a target points.
void check_targets(const at::Tensor& targets, int64_t vocabulary) {
  if (targets.numel() == 0) return;
  const auto [low, high] = targets.aminmax();
  for (const int64_t target : {low.item<int64_t>(), high.item<int64_t>()}) {
    if (target == kIgnoredTarget || (target >= 0 && target < vocabulary)) continue;
    throw std::invalid_argument("[model] targets must be -1 or tokens below vocab_size " +
                                std::to_string(vocabulary) + ", one is " + std::to_string(target));
  }
}

HeadResult by_kernels(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
                      const HeadOptions& options) {
  return head_cpu(x.contiguous(), weight.contiguous(), targets.contiguous(), options,
                  cpu::chosen_model_kernels());
}

// tanh(x weight^T / softcap), [rows, V]: the logits without their factor `softcap`.
at::Tensor capped(const at::Tensor& x, const at::Tensor& weight) {
  return at::mm(x, weight.t()).to(accumulation_type(x)).div_(kLogitSoftcap).tanh_();
}

// The same in plain tensors, a chunk of rows after the other: for what has no kernels, such as
// fp64.
class PlainHead {
 public:
  PlainHead(const at::Tensor& x, const at::Tensor& weight, const HeadOptions& options)
      : x_(x), weight_(weight), options_(options) {
    if (!options.gradients) return;
    result_.dx = at::empty_like(x);
    result_.dweight = at::zeros_like(weight, weight.options().dtype(accumulation_type(x)));
  }

  HeadResult run(const at::Tensor& targets) {
    if (x_.size(0) == 0) {
      result_.losses = at::empty({0}, x_.options().dtype(accumulation_type(x_)));
      return result_;
    }
    const int64_t step = std::max<int64_t>(1, kChunkElements / weight_.size(0));
    std::vector<at::Tensor> losses;
    for (int64_t row = 0; row < x_.size(0); row += step) {
      const int64_t rows = std::min(step, x_.size(0) - row);
      losses.push_back(take_rows(row, rows, targets.narrow(0, row, rows)));
    }
    result_.losses = at::cat(losses);
    return result_;
  }

 private:
  at::Tensor take_rows(int64_t row, int64_t rows, const at::Tensor& targets) {
    const at::Tensor x = x_.narrow(0, row, rows);
    const at::Tensor tanh = capped(x, weight_);
    const at::Tensor logits = tanh * kLogitSoftcap;
    const at::Tensor valid = (targets != kIgnoredTarget).unsqueeze(1);
    const at::Tensor target = targets.unsqueeze(1).clamp_min(0);
    const at::Tensor logsumexp = at::logsumexp(logits, 1, /*keepdim=*/true);
    const at::Tensor losses =
        logsumexp - logits.gather(1, target) + options_.z_loss * logsumexp.square();
    if (options_.gradients) {
      // Softmax minus one-hot, through the soft cap.
      at::Tensor slope = (logits - logsumexp).exp_().mul_(1 + 2 * options_.z_loss * logsumexp);
      slope.scatter_add_(1, target, at::full_like(logsumexp, -1));
      slope.mul_(1 - tanh.square()).mul_(valid.to(slope.scalar_type()) * options_.factor);
      add_gradients(row, x, slope.to(x.scalar_type()));
    }
    return losses.masked_fill(~valid, 0).squeeze(1);
  }

  void add_gradients(int64_t row, const at::Tensor& x, const at::Tensor& slope) {
    at::Tensor dx = result_.dx.narrow(0, row, x.size(0));
    at::mm_out(dx, slope, weight_);
    if (x.scalar_type() == result_.dweight.scalar_type()) {
      result_.dweight.addmm_(slope.t(), x);
    } else {
      result_.dweight.add_(at::mm(slope.t(), x));
    }
  }

  const at::Tensor x_, weight_;
  const HeadOptions options_;
  HeadResult result_;
};

// x and weight: of one dtype.
HeadResult run_head(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
                    const HeadOptions& options) {
  check_shapes(x, weight, targets);
  if (targets.is_cpu()) check_targets(targets, weight.size(0));
  if (cpu::has_model_kernels(x)) return by_kernels(x, weight, targets, options);
  if (has_head_cuda(x)) {
    return head_cuda(x.contiguous(), weight.to(x.scalar_type()).contiguous(), targets.contiguous(),
                     options);
  }
  return PlainHead(x, weight, options).run(targets);
}

// A tensor that forward() left for backward(), which hands it on: no copy of a gradient is made.
at::Tensor take(AutogradContext* context, const std::string& name) {
  const auto found = context->saved_data.find(name);
  if (found == context->saved_data.end()) {
    throw std::invalid_argument("[model] head_loss can be differentiated once only");
  }
  at::Tensor tensor = found->second.toTensor();
  context->saved_data.erase(name);
  return tensor;
}

struct HeadLoss : torch::autograd::Function<HeadLoss> {
  // `copy` is `weight`, which the gradient is of, in x's dtype.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& /*weight*/, const at::Tensor& copy,
                            const at::Tensor& targets, const HeadLossOptions& options,
                            bool gradients) {
    const auto count = static_cast<double>(options.count);
    const HeadResult result = run_head(
        x, copy, targets, {.factor = 1 / count, .z_loss = options.z_loss, .gradients = gradients});
    context->saved_data["dx"] = result.dx;
    context->saved_data["dweight"] = result.dweight;
    return result.losses.sum() / count;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    at::Tensor dx = take(context, "dx"), dweight = take(context, "dweight");
    const at::Tensor& upstream = gradients[0];
    // On a GPU, asking would wait for it.
    const bool is_one = upstream.is_cpu() && upstream.item<double>() == 1;
    if (!is_one) dx.mul_(upstream), dweight.mul_(upstream);
    return differentiated_once(
        {dx, dweight, {}, {}, {}, {}}, gradients,
        "[model] head_loss has no second derivative; use head_loss_reference, which has");
  }
};

}  // namespace

at::Tensor head_logits(const at::Tensor& x, const CastWeight& weight) {
  const at::Tensor w = weight.in(x.scalar_type());
  if (at::GradMode::is_enabled() && (x.requires_grad() || w.requires_grad())) {
    return capped(x, w) * kLogitSoftcap;
  }
  if (!x.is_cpu()) return capped(x, w).mul_(kLogitSoftcap);
  // Some of the vocabulary after the other, so that all but the result stays in cache.
  const int64_t rows = x.size(0), vocabulary = w.size(0);
  const int64_t step = std::max<int64_t>(1, kTileElements / std::max<int64_t>(1, rows));
  const at::Tensor logits = at::empty({rows, vocabulary}, x.options().dtype(accumulation_type(x)));
  for (int64_t first = 0; first < vocabulary; first += step) {
    const int64_t count = std::min(step, vocabulary - first);
    const at::Tensor some = logits.narrow(1, first, count), of_them = w.narrow(0, first, count);
    if (cpu::has_model_kernels(x)) {
      soft_cap_cpu(at::mm(x, of_them.t()), kLogitSoftcap, some, cpu::chosen_model_kernels());
    } else {
      some.copy_(capped(x, of_them).mul_(kLogitSoftcap));
    }
  }
  return logits;
}

at::Tensor head_token_losses(const at::Tensor& x, const CastWeight& weight,
                             const at::Tensor& targets) {
  const at::NoGradGuard no_grad;
  RECORD_USER_SCOPE(kHeadScope);
  return run_head(x, weight.copy_in(x.scalar_type()), targets, {.gradients = false}).losses;
}

at::Tensor head_loss(const at::Tensor& x, const CastWeight& weight, const at::Tensor& targets,
                     const HeadLossOptions& options) {
  RECORD_USER_SCOPE(kHeadScope);
  const bool gradients =
      at::GradMode::is_enabled() && (x.requires_grad() || weight.value().requires_grad());
  return HeadLoss::apply(x, weight.value(), weight.copy_in(x.scalar_type()), targets, options,
                         gradients);
}

at::Tensor head_loss_reference(const at::Tensor& x, const at::Tensor& weight,
                               const at::Tensor& targets, const HeadLossOptions& options) {
  const at::Tensor z = at::mm(x, weight.to(x.scalar_type()).t()).to(accumulation_type(x));
  const at::Tensor logits = kLogitSoftcap * (z / kLogitSoftcap).tanh();
  const at::Tensor losses =
      at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum, kIgnoredTarget);
  const at::Tensor squares = at::logsumexp(logits, 1).square();
  const at::Tensor z_losses =
      squares.masked_fill(targets == kIgnoredTarget, 0).sum() * options.z_loss;
  return (losses + z_losses) / static_cast<double>(options.count);
}

}  // namespace nanoflex
