// FlashAttention-2 (Dao, arXiv:2307.08691) written out tile by tile in plain tensors: Algorithm 1
// forward, Algorithm 2 backward. A reference to read and to test against, not the fast path.
//
// Layout: N = B * H_kv key heads, each serving G = H / H_kv query heads.
//   q, o, dq: [N, G, T, D]    k, v, dk, dv: [N, S, D]    m, l, logsumexp: [N, G, T, 1]
// A tile of queries holds the rows of all G heads, [N, G * rows, D], so products with k and v sum
// over the heads that share them. Everything is computed in fp32 (fp64 for fp64 inputs).
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>

#include "attention/backends.h"
#include "attention/differentiated_once.h"
#include "attention/tiles.h"

namespace nanoflex {
namespace {

using flex::Range;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Problem {
  int64_t B, H, H_kv, T, S, D, N, G;
  flex::Expression mask;
  double scale;
  at::ScalarType dtype;  // of the arithmetic

  Problem(const at::Tensor& q, const at::Tensor& k, flex::Expression mask, double scale)
      : B(q.size(0)),
        H(q.size(1)),
        H_kv(k.size(1)),
        T(q.size(2)),
        S(k.size(2)),
        D(q.size(3)),
        N(B * H_kv),
        G(H / H_kv),
        mask(std::move(mask)),
        scale(scale),
        dtype(q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat) {}

  at::Tensor queries(const at::Tensor& x) const { return x.to(dtype).reshape({N, G, T, -1}); }
  at::Tensor keys(const at::Tensor& x) const { return x.to(dtype).reshape({N, S, D}); }

  std::vector<Tile> row_of_tiles(Range rows, at::Device device) const {
    return visible_tiles(mask, {.B = B, .H = H, .T = T, .S = S, .device = device, .rows = rows});
  }
  std::vector<Tile> column_of_tiles(Range columns, at::Device device) const {
    return visible_tiles(mask,
                         {.B = B, .H = H, .T = T, .S = S, .device = device, .columns = columns});
  }

  // s = q_i k_j^T, hidden pairs -inf. q_tile: [N, G * rows, D], scaled; result: [N, G * rows,
  // columns].
  at::Tensor scores(const at::Tensor& q_tile, const at::Tensor& k_tile, const Tile& tile) const {
    at::Tensor s = at::bmm(q_tile, k_tile.transpose(1, 2));
    if (tile.hidden.defined()) {
      s.view({B, H, tile.rows.size(), tile.columns.size()}).masked_fill_(tile.hidden, -kInfinity);
    }
    return s;
  }
};

at::Tensor query_tile(const at::Tensor& x, Range rows) {
  const at::Tensor tile = x.slice(2, rows.begin, rows.end);
  return tile.reshape({x.size(0), -1, x.size(3)});
}

at::Tensor key_tile(const at::Tensor& x, Range columns) {
  return x.slice(1, columns.begin, columns.end);
}

// exp(-inf - -inf) is NaN: rows that have seen nothing subtract 0 instead.
at::Tensor finite(const at::Tensor& maximum) {
  return maximum.masked_fill(maximum == -kInfinity, 0);
}

// Algorithm 1: one pass over the keys with a running maximum m and denominator l.
// Returns o [N, G, T, D] and logsumexp [N, G, T, 1].
std::pair<at::Tensor, at::Tensor> tiled_forward(const Problem& p, const at::Tensor& q,
                                                const at::Tensor& k, const at::Tensor& v) {
  const at::Tensor output = at::empty_like(q),
                   logsumexp = at::empty({p.N, p.G, p.T, 1}, q.options());
  for (const Range rows : tile_ranges(p.T)) {
    const at::Tensor q_i = query_tile(q, rows);
    at::Tensor o = at::zeros_like(q_i);
    at::Tensor l = at::zeros({p.N, q_i.size(1), 1}, q.options());
    at::Tensor m = at::full_like(l, -kInfinity);
    for (const Tile& tile : p.row_of_tiles(rows, q.device())) {
      const at::Tensor s = p.scores(q_i, key_tile(k, tile.columns), tile);
      const at::Tensor m_new = at::maximum(m, s.amax(-1, /*keepdim=*/true));
      const at::Tensor shift = finite(m_new);
      const at::Tensor weights = (s - shift).exp_();
      const at::Tensor rescale = (m - shift).exp_();
      l = l.mul_(rescale).add_(weights.sum(-1, /*keepdim=*/true));
      o = o.mul_(rescale).baddbmm_(weights, key_tile(v, tile.columns));
      m = m_new;
    }
    const std::vector<int64_t> shape = {p.N, p.G, rows.size(), -1};
    output.slice(2, rows.begin, rows.end).copy_((o / l.masked_fill(l == 0, 1)).view(shape));
    logsumexp.slice(2, rows.begin, rows.end).copy_((m + l.log()).view(shape));
  }
  return {output, logsumexp};
}

struct Gradients {
  at::Tensor dq, dk, dv;
};

// Algorithm 2: weights are recomputed from the logsumexp, a column of tiles at a time.
// q is scaled; correction: [N, G, T, 1], D = rowsum(dO * O), less the logsumexp's own gradient.
Gradients tiled_backward(const Problem& p, const Gradients& zeros, const at::Tensor& q,
                         const at::Tensor& k, const at::Tensor& v, const at::Tensor& logsumexp,
                         const at::Tensor& d_output, const at::Tensor& correction) {
  const at::Tensor shift = finite(logsumexp);
  const auto& [dq, dk, dv] = zeros;
  for (const Range columns : tile_ranges(p.S)) {
    const at::Tensor k_j = key_tile(k, columns), v_j = key_tile(v, columns);
    at::Tensor dk_j = key_tile(dk, columns), dv_j = key_tile(dv, columns);
    for (const Tile& tile : p.column_of_tiles(columns, q.device())) {
      const at::Tensor q_i = query_tile(q, tile.rows), do_i = query_tile(d_output, tile.rows);
      const at::Tensor s = p.scores(q_i, k_j, tile);
      const at::Tensor weights = (s - query_tile(shift, tile.rows)).exp_();
      const at::Tensor d_weights = at::bmm(do_i, v_j.transpose(1, 2));
      const at::Tensor ds = (d_weights - query_tile(correction, tile.rows)).mul_(weights);
      dv_j.baddbmm_(weights.transpose(1, 2), do_i);
      dk_j.baddbmm_(ds.transpose(1, 2), q_i);
      at::Tensor dq_i = dq.slice(2, tile.rows.begin, tile.rows.end);
      dq_i.add_(at::bmm(ds, k_j).view_as(dq_i), p.scale);
    }
  }
  return zeros;
}

// From what TiledForward saved and the gradients of its results, of which either may be undefined.
Gradients tiled_gradients(const Problem& p, const variable_list& saved,
                          const variable_list& upstream) {
  const at::NoGradGuard no_grad;
  const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &o = saved[3];
  const at::Tensor d_output = upstream[0].defined() ? upstream[0] : at::zeros_like(q);
  const at::Tensor queries = p.queries(q) * p.scale, keys = p.keys(k), values = p.keys(v);
  const at::Tensor d_o = p.queries(d_output), logsumexp = saved[4].view({p.N, p.G, p.T, 1});
  at::Tensor correction = (d_o * p.queries(o)).sum(-1, /*keepdim=*/true);
  if (upstream[1].defined()) correction = correction - p.queries(upstream[1]);
  const Gradients zeros = {at::zeros_like(queries), at::zeros_like(keys), at::zeros_like(values)};
  const auto [dq, dk, dv] =
      tiled_backward(p, zeros, queries, keys, values, logsumexp, d_o, correction);
  return {dq.view(q.sizes()).to(q.scalar_type()), dk.view(k.sizes()).to(k.scalar_type()),
          dv.view(v.sizes()).to(v.scalar_type())};
}

// Autograd's context holds no C++ values but those in a capsule.
struct SavedMask : torch::CustomClassHolder {
  explicit SavedMask(flex::Expression mask) : mask(std::move(mask)) {}
  flex::Expression mask;
};

struct TiledForward : torch::autograd::Function<TiledForward> {
  static variable_list forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const flex::Expression& mask, double scale) {
    const Problem p(q, k, mask, scale);
    auto [o, logsumexp] = tiled_forward(p, p.queries(q) * scale, p.keys(k), p.keys(v));
    const at::Tensor output = o.view(q.sizes()).to(q.scalar_type());
    logsumexp = logsumexp.view({p.B, p.H, p.T});
    variable_list saved = {q, k, v, output, logsumexp};
    const variable_list read = flex::watched_tensors_of(mask);
    saved.insert(saved.end(), read.begin(), read.end());  // so that changes are noticed
    context->save_for_backward(saved);
    context->saved_data["mask"] = c10::IValue::make_capsule(c10::make_intrusive<SavedMask>(mask));
    context->saved_data["scale"] = scale;
    return {output, logsumexp};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto mask =
        c10::static_intrusive_pointer_cast<SavedMask>(context->saved_data["mask"].toCapsule());
    const Problem p(saved[0], saved[1], mask->mask, context->saved_data["scale"].toDouble());
    const auto [dq, dk, dv] = tiled_gradients(p, saved, gradients);
    return differentiated_once(  // none for mask and scale
        {dq, dk, dv, {}, {}}, gradients,
        "[attention] backend 'tiled' has no second derivative; use 'vanilla', which has");
  }
};

std::string why_not_tiled(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                          const Spec& spec) {
  if (spec.dropout.probability > 0) return "it has no dropout";
  if (!spec.score.defined()) return "";
  return "it takes no score expression yet ('" + flex::to_text(spec.score) + "')";
}

Attention tiled_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const Spec& spec) {
  const variable_list result = TiledForward::apply(q, k, v, spec.mask, scale_of(q, spec));
  return {result[0], result[1]};
}

}  // namespace

Backend tiled_backend() { return {"tiled", false, why_not_tiled, tiled_attention}; }

}  // namespace nanoflex
