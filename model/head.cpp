#include "model/head.h"

#include <torch/autograd.h>

#include <algorithm>

namespace nanoflex {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kIgnored = -1;
constexpr int64_t kChunkElements = int64_t{256} * 50304;  // logits alive at once: 51 MB in fp32

at::ScalarType accumulation_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

int64_t chunk_rows(const at::Tensor& weight) {
  return std::max<int64_t>(1, kChunkElements / weight.size(0));
}

// tanh(x weight^T / softcap), [rows, V]: the logits without their factor `softcap`.
at::Tensor capped(const at::Tensor& x, const at::Tensor& weight) {
  return at::mm(x, weight.t()).to(accumulation_type(x)).div_(kLogitSoftcap).tanh_();
}

struct ChunkLoss {
  at::Tensor losses;     // [rows]
  at::Tensor logsumexp;  // [rows, 1]
  at::Tensor valid;      // [rows, 1], whether the target counts
  at::Tensor target;     // [rows, 1], 0 where it does not
};

ChunkLoss chunk_loss(const at::Tensor& logits, const at::Tensor& targets) {
  const at::Tensor valid = (targets != kIgnored).unsqueeze(1);
  const at::Tensor target = targets.unsqueeze(1).clamp_min(0);
  const at::Tensor logsumexp = at::logsumexp(logits, 1, /*keepdim=*/true);
  const at::Tensor losses = (logsumexp - logits.gather(1, target)).masked_fill_(~valid, 0);
  return {losses.squeeze(1), logsumexp, valid, target};
}

// d loss / d (x weight^T), written over `tanh`: softmax minus one-hot, through the soft cap.
at::Tensor chunk_gradient(at::Tensor tanh, at::Tensor logits, const ChunkLoss& loss,
                          int64_t count) {
  at::Tensor gradient = logits.sub_(loss.logsumexp).exp_();
  gradient.scatter_add_(1, loss.target, at::full_like(loss.logsumexp, -1));
  gradient.mul_(tanh.square_().neg_().add_(1));
  return gradient.mul_(loss.valid.to(gradient.scalar_type()).div_(static_cast<double>(count)));
}

struct HeadLoss : torch::autograd::Function<HeadLoss> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& targets, int64_t count) {
    const at::Tensor typed_weight = weight.to(x.scalar_type());
    const bool wanted = x.requires_grad() || weight.requires_grad();
    at::Tensor total = at::zeros({}, x.options().dtype(accumulation_type(x)));
    at::Tensor dx = wanted ? at::empty_like(x) : at::Tensor();
    at::Tensor dweight = wanted ? at::zeros_like(weight) : at::Tensor();
    for (int64_t begin = 0; begin < x.size(0); begin += chunk_rows(weight)) {
      const int64_t rows = std::min(chunk_rows(weight), x.size(0) - begin);
      const at::Tensor chunk = x.narrow(0, begin, rows);
      const at::Tensor tanh = capped(chunk, typed_weight);
      const at::Tensor logits = tanh * kLogitSoftcap;
      const ChunkLoss loss = chunk_loss(logits, targets.narrow(0, begin, rows));
      total += loss.losses.sum();
      if (!wanted) continue;
      const at::Tensor gradient = chunk_gradient(tanh, logits, loss, count).to(x.scalar_type());
      at::Tensor dx_rows = dx.narrow(0, begin, rows);
      at::mm_out(dx_rows, gradient, typed_weight);
      if (x.scalar_type() == weight.scalar_type()) {
        dweight.addmm_(gradient.t(), chunk);
      } else {
        dweight.add_(at::mm(gradient.t(), chunk));
      }
    }
    context->save_for_backward({dx, dweight});
    return total / static_cast<double>(count);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& upstream = gradients[0];
    return {saved[0] * upstream.to(saved[0].scalar_type()), saved[1] * upstream, {}, {}};
  }
};

}  // namespace

at::Tensor head_logits(const at::Tensor& x, const at::Tensor& weight) {
  return capped(x, weight.to(x.scalar_type())) * kLogitSoftcap;
}

at::Tensor head_token_losses(const at::Tensor& x, const at::Tensor& weight,
                             const at::Tensor& targets) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> losses;
  for (int64_t begin = 0; begin < x.size(0); begin += chunk_rows(weight)) {
    const int64_t rows = std::min(chunk_rows(weight), x.size(0) - begin);
    const at::Tensor logits = head_logits(x.narrow(0, begin, rows), weight);
    losses.push_back(chunk_loss(logits, targets.narrow(0, begin, rows)).losses);
  }
  return at::cat(losses);
}

at::Tensor head_loss(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
                     int64_t count) {
  return HeadLoss::apply(x, weight, targets, count);
}

at::Tensor head_loss_reference(const at::Tensor& x, const at::Tensor& weight,
                               const at::Tensor& targets, int64_t count) {
  const at::Tensor logits = at::mm(x, weight.to(x.scalar_type()).t()).to(accumulation_type(x));
  const at::Tensor losses = at::cross_entropy_loss(kLogitSoftcap * (logits / kLogitSoftcap).tanh(),
                                                   targets, {}, at::Reduction::Sum, kIgnored);
  return losses / static_cast<double>(count);
}

}  // namespace nanoflex
