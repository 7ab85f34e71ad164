#include "attention/cpu/fused_cpu.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "attention/cpu/denominator.h"
#include "attention/philox.h"

namespace nanoflex::cpu {
namespace {

constexpr int64_t kUnitsPerThread = 4;        // so that unequal units still end together
constexpr int64_t kFewestSplitKeys = 512;     // below, joining the parts costs more than it gains
constexpr int64_t kSerialProducts = 1 << 19;  // below, waking the threads costs more

const Kernels& of_dtype(const KernelSet& set, const at::Tensor& q) {
  return q.scalar_type() == at::kFloat ? set.float32 : set.bfloat16;
}

// The kernels want the elements of a head side by side.
at::Tensor with_dense_heads(const at::Tensor& x) {
  return x.stride(3) == 1 || x.size(3) == 1 ? x : x.contiguous();
}

Rows rows_of(const at::Tensor& x) { return {x.data_ptr(), x.stride(0), x.stride(1), x.stride(2)}; }

Problem make_problem(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const FusedOptions& options) {
  Problem p{.B = q.size(0),
            .H = q.size(1),
            .H_kv = k.size(1),
            .T = q.size(2),
            .S = k.size(2),
            .D = q.size(3),
            .left = 0,
            .right = 0,
            .scale = static_cast<float>(options.scale)};
  // Positions are at most S + T apart.
  const auto bounded = [&](int64_t side) { return std::clamp(side, -p.S - p.T, p.S + p.T); };
  p.left = bounded(options.left);
  p.right = bounded(options.right);
  p.dropout = options.dropout.probability > 0;
  p.seed = options.dropout.seed;
  p.threshold = dropout_threshold(options.dropout.probability);
  p.keep_scale = static_cast<float>(1 / (1 - options.dropout.probability));
  p.q = rows_of(q), p.k = rows_of(k), p.v = rows_of(v);
  return p;
}

// Runs body(unit, scratch) for units 0 .. count, each by the thread that is free first; units begin
// in order. Results must not depend on who runs what.
template <typename Body>
void run_units(int64_t count, int64_t scratch_bytes, bool serial, const Body& body) {
  const int64_t threads = serial ? 1 : std::min<int64_t>(count, at::get_num_threads());
  const int64_t bytes = (scratch_bytes + 127) / 64 * 64;
  const at::Tensor memory = at::empty({threads * bytes + 64}, at::kByte);
  auto* begin = static_cast<char*>(memory.mutable_data_ptr());
  begin += (64 - reinterpret_cast<uintptr_t>(begin) % 64) % 64;
  std::atomic<int64_t> next = 0;
  const auto work = [&](int64_t thread) {
    for (int64_t unit = next++; unit < count; unit = next++) body(unit, begin + thread * bytes);
  };
  if (threads == 1) return work(0);
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t thread = first; thread < last; ++thread) work(thread);
  });
}

int64_t divided_up(int64_t x, int64_t y) { return (x + y - 1) / y; }

// Multiplications of one product of q and k, if nothing is hidden.
int64_t products(const Problem& p) { return p.B * p.H * p.T * p.S * p.D; }

// How the forward pass is cut: blocks of columns, and ranges of keys when those are few.
struct ForwardPlan {
  int64_t heads, columns, column_block, column_blocks, splits, split_keys;

  ForwardPlan(const Problem& p, const Kernels& kernels)
      : heads(p.B * p.H_kv), columns(p.H / p.H_kv * p.T) {
    const int64_t wanted = kUnitsPerThread * at::get_num_threads();
    const int64_t even = divided_up(heads * columns, wanted);
    column_block =
        std::clamp(divided_up(even, kernels.lanes) * kernels.lanes, kernels.lanes, kernels.columns);
    column_blocks = divided_up(columns, column_block);
    const int64_t units = heads * column_blocks;
    const bool few = units < at::get_num_threads();
    splits = few ? std::clamp<int64_t>(p.S / kFewestSplitKeys, 1, divided_up(wanted, units)) : 1;
    split_keys = divided_up(divided_up(p.S, splits), 2) * 2;
    splits = divided_up(p.S, split_keys);
  }

  int64_t units() const { return heads * column_blocks * splits; }
  int64_t partial_size(const Problem& p) const { return column_block * (p.D + 2); }

  // Last columns first: under a causal mask they see most.
  ForwardUnit unit(const Problem& p, int64_t index) const {
    const int64_t split = index % splits, head = index / splits % heads;
    const int64_t block = column_blocks - 1 - index / splits / heads;
    ForwardUnit unit{};
    unit.b = head / p.H_kv, unit.h_kv = head % p.H_kv;
    unit.column = block * column_block;
    unit.columns = std::min(column_block, columns - unit.column);
    unit.key_begin = split * split_keys;
    unit.key_end = std::min(p.S, unit.key_begin + split_keys);
    return unit;
  }
};

// Joins the parts of one column: o = sum f_i o_i / sum f_i l_i with f_i = e^(scale (m_i - m)).
template <typename Output>
void join_column(const Problem& p, const ForwardPlan& plan, const float* parts,
                 const ForwardUnit& unit, int64_t column) {
  const int64_t flat = unit.column + column;
  const int64_t h = unit.h_kv * (p.H / p.H_kv) + flat / p.T, t = flat % p.T;
  const int64_t size = plan.partial_size(p);
  float maximum = -std::numeric_limits<float>::infinity(), sum = 0;
  const auto part_maximum = [&](int64_t i) {
    return parts[i * size + unit.columns * p.D + column];
  };
  for (int64_t i = 0; i < plan.splits; ++i) maximum = std::max(maximum, part_maximum(i));
  const float shift = std::isinf(maximum) && maximum < 0 ? 0 : maximum;
  const auto factor = [&](int64_t i) { return std::exp(p.scale * (part_maximum(i) - shift)); };
  for (int64_t i = 0; i < plan.splits; ++i) {
    sum += factor(i) * parts[i * size + unit.columns * (p.D + 1) + column];
  }
  Output* row = static_cast<Output*>(p.o.data) + unit.b * p.o.batch + h * p.o.head + t * p.o.row;
  for (int64_t d = 0; d < p.D; ++d) {
    float value = 0;
    for (int64_t i = 0; i < plan.splits; ++i)
      value += factor(i) * parts[i * size + column * p.D + d];
    row[d] = static_cast<Output>(sum == 0 ? 0 : value / sum);
  }
  put_denominator(p, (unit.b * p.H + h) * p.T + t, maximum, sum);
}

void join(const Problem& p, const ForwardPlan& plan, const float* partials, bool bfloat16) {
  const int64_t size = plan.splits * plan.partial_size(p);
  for (int64_t group = 0; group < plan.heads * plan.column_blocks; ++group) {
    const ForwardUnit unit = plan.unit(p, group * plan.splits);
    for (int64_t column = 0; column < unit.columns; ++column) {
      if (bfloat16) {
        join_column<at::BFloat16>(p, plan, partials + group * size, unit, column);
      } else {
        join_column<float>(p, plan, partials + group * size, unit, column);
      }
    }
  }
}

at::Tensor compute_delta(Problem& p, const at::Tensor& d_logsumexp, const Kernels& kernels) {
  const at::Tensor delta = at::empty({p.B, p.H, p.T}, at::kFloat);
  const at::Tensor given = d_logsumexp.defined() ? d_logsumexp.contiguous() : d_logsumexp;
  const float* d_lse = given.defined() ? given.const_data_ptr<float>() : nullptr;
  at::parallel_for(0, p.B * p.H, divided_up(kSerialProducts, p.T * p.D), [&](int64_t a, int64_t z) {
    for (int64_t i = a; i < z; ++i) {
      kernels.delta(p, d_lse, i / p.H, i % p.H, 0, p.T, delta.mutable_data_ptr<float>());
    }
  });
  return delta;
}

int64_t keys_per_unit(const Problem& p, const Kernels& kernels) {
  const int64_t even = divided_up(p.B * p.H_kv * p.S, kUnitsPerThread * at::get_num_threads());
  return std::clamp(divided_up(even, kernels.lanes) * kernels.lanes, kernels.lanes, kernels.keys);
}

}  // namespace

FusedResult forward(const at::Tensor& q_any, const at::Tensor& k_any, const at::Tensor& v_any,
                    const FusedOptions& options, const KernelSet& set) {
  const at::Tensor q = with_dense_heads(q_any), k = with_dense_heads(k_any),
                   v = with_dense_heads(v_any);
  const Kernels& kernels = of_dtype(set, q);
  Problem p = make_problem(q, k, v, options);
  const FusedResult result = {with_dense_heads(at::empty_like(q)),
                              at::empty({p.B, p.H, p.T}, at::kFloat),
                              at::empty({2, p.B, p.H, p.T}, at::kFloat)};
  p.o = rows_of(result.output);
  p.logsumexp = result.logsumexp.mutable_data_ptr<float>();
  p.denominator = result.denominator.mutable_data_ptr<float>();

  const ForwardPlan plan(p, kernels);
  const int64_t size = plan.splits > 1 ? plan.partial_size(p) : 0;
  const at::Tensor partials = at::empty({plan.units() * size}, at::kFloat);
  run_units(plan.units(), kernels.scratch_bytes(p), products(p) < kSerialProducts,
            [&](int64_t index, char* scratch) {
              ForwardUnit unit = plan.unit(p, index);
              if (size > 0) unit.partial = partials.mutable_data_ptr<float>() + index * size;
              kernels.forward(p, unit, scratch);
            });
  if (size > 0) join(p, plan, partials.const_data_ptr<float>(), q.scalar_type() == at::kBFloat16);
  return result;
}

FusedGradients backward(const at::Tensor& q_any, const at::Tensor& k_any, const at::Tensor& v_any,
                        const FusedResult& result, const at::Tensor& d_output_any,
                        const at::Tensor& d_logsumexp, const FusedOptions& options,
                        const KernelSet& set) {
  const at::Tensor q = with_dense_heads(q_any), k = with_dense_heads(k_any),
                   v = with_dense_heads(v_any), d_output = with_dense_heads(d_output_any);
  const Kernels& kernels = of_dtype(set, q);
  Problem p = make_problem(q, k, v, options);
  p.o = rows_of(result.output), p.d_o = rows_of(d_output);
  p.denominator = result.denominator.mutable_data_ptr<float>();
  const at::Tensor delta = compute_delta(p, d_logsumexp, kernels);
  p.delta = delta.const_data_ptr<float>();
  const at::Tensor dq = at::zeros({p.B, p.H, p.T, p.D}, at::kFloat);
  const at::Tensor dk = with_dense_heads(at::empty_like(k)),
                   dv = with_dense_heads(at::empty_like(v));
  p.dq = dq.mutable_data_ptr<float>(), p.dk = rows_of(dk), p.dv = rows_of(dv);

  const int64_t keys = keys_per_unit(p, kernels), blocks = divided_up(p.S, keys);
  const int64_t heads = p.B * p.H_kv;
  const at::Tensor turn = at::zeros({p.B * p.H * divided_up(p.T, kernels.queries)}, at::kInt);
  // Key blocks of different heads side by side, so that threads seldom wait for their turn.
  run_units(heads * blocks, kernels.scratch_bytes(p), products(p) < kSerialProducts,
            [&](int64_t index, char* scratch) {
              const int64_t head = index % heads;
              const BackwardUnit unit = {
                  .b = head / p.H_kv,
                  .h_kv = head % p.H_kv,
                  .index = index / heads,
                  .keys_per_unit = keys,
                  .turn = reinterpret_cast<uint32_t*>(turn.mutable_data_ptr<int32_t>())};
              kernels.backward(p, unit, scratch);
            });
  return {dq.to(q.scalar_type()), dk, dv};
}

}  // namespace nanoflex::cpu
