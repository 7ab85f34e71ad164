#include "tests/attention/reference.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>
#include <stdexcept>

namespace nanoflex {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Row b of the batch is cut into documents of 3 + 4 b positions.
int64_t document_of(int64_t b, int64_t position) { return position / (3 + 4 * b); }

flex::Expression bound_documents(int64_t B, int64_t S, const flex::Expression& mask) {
  const at::Tensor documents = at::empty({B, S}, at::kLong);
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t s = 0; s < S; ++s) documents[b][s] = document_of(b, s);
  }
  return flex::bind(mask, {{"document", documents}});
}

bool causal_rule(int64_t, int64_t, int64_t q, int64_t kv) { return q >= kv; }
bool full_rule(int64_t, int64_t, int64_t, int64_t) { return true; }
bool window_rule(int64_t, int64_t, int64_t q, int64_t kv) { return q >= kv && q - kv <= 4; }
bool document_rule(int64_t b, int64_t, int64_t q, int64_t kv) {
  return document_of(b, q) == document_of(b, kv);
}
bool causal_document_rule(int64_t b, int64_t h, int64_t q, int64_t kv) {
  return causal_rule(b, h, q, kv) && document_rule(b, h, q, kv);
}

// The definition for one row of queries and its gradients, added into dk and dv.
void define_row(const Case& p, const Tensors& in, Tensors& out, int64_t b, int64_t h, int64_t row) {
  const int64_t group = h / (p.H / p.H_kv), q = row + p.S - p.T;
  const auto queries = in.q.accessor<double, 4>(), keys = in.k.accessor<double, 4>();
  const auto values = in.v.accessor<double, 4>(), d_output = in.d_output.accessor<double, 4>();
  auto output = out.output.accessor<double, 4>(), dq = out.dq.accessor<double, 4>();
  auto dk = out.dk.accessor<double, 4>(), dv = out.dv.accessor<double, 4>();
  const double scale = 1 / std::sqrt(static_cast<double>(p.D));

  std::vector<double> scores(p.S, -kInfinity), weights(p.S, 0), d_weights(p.S, 0);
  double largest = -kInfinity, sum = 0, mean = 0;
  for (int64_t s = 0; s < p.S; ++s) {
    if (!p.rule(b, h, q, s)) continue;
    scores[s] = 0;
    for (int64_t d = 0; d < p.D; ++d) {
      scores[s] += scale * queries[b][h][row][d] * keys[b][group][s][d];
    }
    largest = std::max(largest, scores[s]);
  }
  if (largest == -kInfinity) return;  // sees nothing: 0, -inf and no gradient, as `out` begins
  for (int64_t s = 0; s < p.S; ++s) sum += std::exp(scores[s] - largest);
  for (int64_t s = 0; s < p.S; ++s) {
    weights[s] = std::exp(scores[s] - largest) / sum;
    for (int64_t d = 0; d < p.D; ++d) {
      output[b][h][row][d] += weights[s] * values[b][group][s][d];
      dv[b][group][s][d] += weights[s] * d_output[b][h][row][d];
      d_weights[s] += d_output[b][h][row][d] * values[b][group][s][d];
    }
    mean += weights[s] * d_weights[s];
  }
  out.logsumexp.accessor<double, 3>()[b][h][row] = largest + std::log(sum);
  const double d_logsumexp = in.d_logsumexp.accessor<double, 3>()[b][h][row];
  for (int64_t s = 0; s < p.S; ++s) {
    const double d_score = weights[s] * (d_weights[s] - mean + d_logsumexp) * scale;
    for (int64_t d = 0; d < p.D; ++d) {
      dq[b][h][row][d] += d_score * keys[b][group][s][d];
      dk[b][group][s][d] += d_score * queries[b][h][row][d];
    }
  }
}

at::Tensor allowed(const Case& p) {
  const at::Tensor mask = at::empty({p.B, p.H, p.T, p.S}, at::kBool);
  auto values = mask.accessor<bool, 4>();
  for (int64_t b = 0; b < p.B; ++b) {
    for (int64_t h = 0; h < p.H; ++h) {
      for (int64_t row = 0; row < p.T; ++row) {
        for (int64_t s = 0; s < p.S; ++s) values[b][h][row][s] = p.rule(b, h, row + p.S - p.T, s);
      }
    }
  }
  return mask;
}

Attention plain_formula(const Case& p, const at::Tensor& q, const at::Tensor& k,
                        const at::Tensor& v) {
  const int64_t group = p.H / p.H_kv;
  const at::Tensor keys = k.repeat_interleave(group, 1), values = v.repeat_interleave(group, 1);
  const at::Tensor mask = allowed(p);
  const at::Tensor blind = mask.any(-1, /*keepdim=*/true).logical_not();
  const auto statistics = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor scores =
      (at::matmul(q, keys.transpose(-2, -1)).to(statistics) / std::sqrt(static_cast<double>(p.D)))
          .masked_fill(mask.logical_not().logical_and(blind.logical_not()), -kInfinity);
  const at::Tensor weights = at::softmax(scores, -1).masked_fill(blind, 0).to(v.scalar_type());
  return {at::matmul(weights, values),
          at::logsumexp(scores, -1).masked_fill(blind.squeeze(-1), -kInfinity)};
}

template <typename Function>
Tensors with_gradients(const Tensors& inputs, at::ScalarType dtype, bool with_logsumexp,
                       const Function& attention) {
  Tensors all = inputs;
  const auto leaf = [&](const at::Tensor& x) { return x.to(dtype).detach().requires_grad_(); };
  const at::Tensor q = leaf(inputs.q), k = leaf(inputs.k), v = leaf(inputs.v);
  const Attention result = attention(q, k, v);
  std::vector<at::Tensor> results = {result.output}, seeds = {inputs.d_output.to(dtype)};
  if (with_logsumexp) {
    results.push_back(result.logsumexp);
    seeds.push_back(inputs.d_logsumexp.to(result.logsumexp.scalar_type()));
  }
  const auto gradients = torch::autograd::grad(results, {q, k, v}, seeds);
  all.output = result.output.detach();
  all.logsumexp = with_logsumexp ? result.logsumexp.detach() : at::Tensor();
  all.dq = gradients[0], all.dk = gradients[1], all.dv = gradients[2];
  return all;
}

}  // namespace

std::vector<Case> cases() {
  using flex::causal, flex::document, flex::full, flex::window;
  const auto strict = flex::trace_mask([](auto, auto, auto q, auto kv) { return q > kv; });
  const auto by_head = flex::trace_mask(
      [](auto b, auto h, auto q, auto kv) { return ((q + kv + h) % 3 != 0) | (kv == b); });
  const Rule by_head_rule = [](int64_t b, int64_t h, int64_t q, int64_t kv) {
    return ((q + kv + h) % 3 + 3) % 3 != 0 || kv == b;
  };
  return {
      {"one pair", 1, 1, 1, 1, 1, 8, causal(), causal_rule},
      {"causal", 2, 4, 4, 33, 33, 20, causal(), causal_rule},
      {"causal, three tiles and one head size", 1, 2, 1, 48, 48, 40, causal(), causal_rule},
      {"causal, decoding one token", 2, 4, 2, 1, 37, 8, causal(), causal_rule},
      {"causal, decoding a chunk", 2, 4, 1, 17, 50, 20, causal(), causal_rule},
      {"causal, more queries than keys", 1, 2, 2, 21, 5, 8, causal(), causal_rule},
      {"full", 2, 2, 2, 17, 33, 40, full(), full_rule},
      {"full, grouped", 1, 6, 2, 33, 17, 8, full(), full_rule},
      {"full, one key", 1, 2, 1, 5, 1, 3, full(), full_rule},
      {"window", 2, 2, 1, 33, 40, 20, causal() & window(4), window_rule},
      {"document", 2, 2, 2, 33, 33, 8, bound_documents(2, 33, document()), document_rule},
      {"causal document", 2, 4, 2, 33, 33, 40, bound_documents(2, 33, causal() & document()),
       causal_document_rule},
      {"causal document, decoding", 2, 2, 2, 3, 35, 8,
       bound_documents(2, 35, causal() & document()), causal_document_rule},
      {"different for each head", 2, 4, 2, 20, 35, 8, by_head, by_head_rule},
      {"first row sees nothing", 1, 2, 2, 18, 18, 8, strict,
       [](int64_t, int64_t, int64_t q, int64_t kv) { return q > kv; }},
      {"no row sees anything", 1, 2, 1, 17, 19, 8, !full(),
       [](int64_t, int64_t, int64_t, int64_t) { return false; }},
  };
}

Tensors random_inputs(const Case& p, at::ScalarType dtype, uint64_t seed) {
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const auto random = [&](at::IntArrayRef shape) {
    return at::empty(shape, at::kDouble).normal_(0, 1, generator).to(dtype).to(at::kDouble);
  };
  Tensors inputs;
  inputs.q = random({p.B, p.H, p.T, p.D});
  inputs.k = random({p.B, p.H_kv, p.S, p.D});
  inputs.v = random({p.B, p.H_kv, p.S, p.D});
  inputs.d_output = random({p.B, p.H, p.T, p.D});
  inputs.d_logsumexp = at::zeros({p.B, p.H, p.T}, at::kDouble);
  return inputs;
}

Tensors by_definition(const Case& p, const Tensors& inputs) {
  Tensors out = inputs;
  out.output = at::zeros_like(inputs.q);
  out.logsumexp = at::full({p.B, p.H, p.T}, -kInfinity, at::kDouble);
  out.dq = at::zeros_like(inputs.q);
  out.dk = at::zeros_like(inputs.k);
  out.dv = at::zeros_like(inputs.v);
  for (int64_t b = 0; b < p.B; ++b) {
    for (int64_t h = 0; h < p.H; ++h) {
      for (int64_t row = 0; row < p.T; ++row) define_row(p, inputs, out, b, h, row);
    }
  }
  return out;
}

Tensors by_plain_formula(const Case& p, const Tensors& inputs, at::ScalarType dtype) {
  return with_gradients(inputs, dtype, true, [&](const auto& q, const auto& k, const auto& v) {
    return plain_formula(p, q, k, v);
  });
}

Tensors by_backend(const std::string& backend, const Case& p, const Tensors& inputs,
                   at::ScalarType dtype, bool with_logsumexp) {
  const Spec spec = {.mask = p.mask, .need_logsumexp = with_logsumexp};
  return with_gradients(
      inputs, dtype, with_logsumexp,
      [&](const auto& q, const auto& k, const auto& v) { return attend(q, k, v, spec, backend); });
}

std::string refusal(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

}  // namespace nanoflex
