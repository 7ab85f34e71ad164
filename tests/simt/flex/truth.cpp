#include "tests/simt/flex/truth.h"

#include <torch/csrc/autograd/autograd.h>

#include <stdexcept>

#include "attention/backends.h"
#include "attention/flex/block_mask.h"
#include "attention/flex/cuda_source.h"
#include "attention/flex/derivative.h"
#include "attention/flex/evaluate.h"
#include "attention/flex/tile_code.h"
#include "tests/simt/flex/cases.h"

namespace nanoflex::simt {
namespace {

FlexData data_of(const FlexCase& one, const FlexSizes& sizes) {
  const std::string reason = flex::why_no_tile_code({.mask = one.mask,
                                                     .score = one.score,
                                                     .B = sizes.B,
                                                     .H = sizes.H,
                                                     .T = sizes.T,
                                                     .S = sizes.S});
  if (!reason.empty()) throw std::logic_error(one.name + ": " + reason);
  const flex::CudaSource source = flex::cuda_source(one.mask, one.score);
  FlexData data = {.name = one.name, .text = source.text, .words = source.words, .tensors = {}};
  for (const at::Tensor& tensor : source.tensors) {
    const auto* bits = static_cast<const int32_t*>(tensor.const_data_ptr());
    data.tensors.emplace_back(bits, bits + tensor.numel());
  }
  return data;
}

Numbers numbers_of(const at::Tensor& x) {
  const at::Tensor flat = x.detach().to(at::kDouble).contiguous();
  const auto* data = flat.const_data_ptr<double>();
  return Numbers(data, data + flat.numel());
}

at::Tensor tensor_of(const Numbers& x, at::IntArrayRef sizes) {
  return at::tensor(at::ArrayRef<double>(x), at::kDouble).view(sizes);
}

}  // namespace

FlexPairs flex_pairs(size_t index, int variant) {
  const FlexSizes& sizes = kFlexSizes;
  const FlexCase one = flex_cases(sizes, variant).at(index);
  const std::vector<int64_t> shape = {sizes.B, sizes.H, sizes.T, sizes.S};
  at::manual_seed(index);
  const at::Tensor s = at::randn(shape, at::kFloat) * 2;
  const auto all = [&](const flex::Expression& expression, at::ScalarType type) {
    const flex::EvaluateOptions options = {
        .B = sizes.B, .H = sizes.H, .T = sizes.T, .S = sizes.S, .score = s.to(type)};
    return numbers_of(flex::evaluate(expression, options).expand(shape));
  };
  FlexPairs pairs = {.B = 2, .H = 3, .T = 21, .S = 34, .data = data_of(one, sizes)};
  pairs.s.assign(s.const_data_ptr<float>(), s.const_data_ptr<float>() + s.numel());
  if (one.mask.defined()) {
    for (const double seen : all(one.mask, at::kFloat)) pairs.mask.push_back(seen != 0);
  }
  if (one.score.defined()) {
    const flex::Expression derivative = flex::derivative(one.score);
    pairs.score = all(one.score, at::kDouble), pairs.score32 = all(one.score, at::kFloat);
    pairs.derivative = all(derivative, at::kDouble);
    pairs.derivative32 = all(derivative, at::kFloat);
  }
  return pairs;
}

namespace {

// Results and gradients by the plain formula, in `type`.
Results by_vanilla(const Problem& p, const Inputs& x, const FlexCase& one, at::ScalarType type) {
  const auto leaf = [&](const Numbers& values, int heads, int length) {
    return tensor_of(values, {p.B, heads, length, p.D}).to(type).requires_grad_();
  };
  const at::Tensor q = leaf(x.q, p.H, p.T), k = leaf(x.k, p.H_kv, p.S), v = leaf(x.v, p.H_kv, p.S);
  flex::Expression mask = one.mask.defined() ? one.mask : flex::full();
  if (p.right == 0) mask = flex::causal() & mask;
  const Attention result =
      attend_plainly(q, k, v, {.mask = mask, .score = one.score, .need_logsumexp = true});
  // Rows that see nothing have a logsumexp of -inf, which has no gradient.
  const at::Tensor d_lse = tensor_of(x.d_lse, {p.B, p.H, p.T})
                               .to(result.logsumexp.scalar_type())
                               .masked_fill(result.logsumexp.detach().isinf(), 0);
  const at::Tensor d_o = tensor_of(x.d_o, {p.B, p.H, p.T, p.D});
  const auto gradients =
      torch::autograd::grad({result.output, result.logsumexp}, {q, k, v}, {d_o.to(type), d_lse});
  Results results = {.o = numbers_of(result.output),
                     .lse = numbers_of(result.logsumexp),
                     .dq = numbers_of(gradients[0]),
                     .dk = numbers_of(gradients[1]),
                     .dv = numbers_of(gradients[2])};
  const auto largest = [](const at::Tensor& y) { return y.abs().max().item<double>(); };
  const at::Tensor d_weight = at::matmul(
      d_o, v.detach().to(at::kDouble).repeat_interleave(p.H / p.H_kv, 1).transpose(2, 3));
  results.dq_term = largest(d_weight) * p.scale() * largest(k);
  results.dk_term = largest(d_weight) * p.scale() * largest(q);
  results.dv_term = largest(d_o);
  return results;
}

}  // namespace

FlexAttention flex_attention(const std::string& name, const Problem& p, Floats floats) {
  const FlexSizes sizes = {p.B, p.H, p.T, p.S};
  const at::ScalarType type = floats == Floats::kBFloat16 ? at::kBFloat16 : at::kFloat;
  const auto round = [type](double value) {
    return at::scalar_tensor(value, at::kDouble).to(type).item<double>();
  };
  for (const FlexCase& one : flex_cases(sizes, 1)) {
    if (one.name != name) continue;
    FlexAttention all = {.problem = p, .data = data_of(one, sizes)};
    all.inputs = random_inputs(p, round);
    all.truth = by_vanilla(p, all.inputs, one, at::kDouble);
    all.plain = by_vanilla(p, all.inputs, one, type);
    if (one.mask.defined()) {
      const flex::BlockMask blocks = flex::make_block_mask(
          one.mask, {.B = p.B, .H = p.H, .T = p.T, .S = p.S, .block_size = 16});
      all.block_size = 16;
      all.batches = static_cast<int>(blocks.batches), all.heads = static_cast<int>(blocks.heads);
      all.query_blocks = static_cast<int>(blocks.query_blocks);
      all.key_blocks = static_cast<int>(blocks.key_blocks);
      const auto* kinds = blocks.kinds.const_data_ptr<uint8_t>();
      all.kinds.assign(kinds, kinds + blocks.kinds.numel());
    }
    return all;
  }
  throw std::logic_error("no case is called '" + name + "'");
}

}  // namespace nanoflex::simt
