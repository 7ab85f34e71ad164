#include "attention/cpu/fused_cpu.h"

#include <ATen/Parallel.h>
#include <ATen/ceil_div.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <thread>

#include "attention/cpu/denominator.h"
#include "attention/cpu/sight.h"
#include "attention/flex/tile_code.h"
#include "attention/philox.h"
#include "attention/units.h"

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

Blocks blocks_of(const FusedOptions& options) {
  if (!options.blocks) return {};
  const flex::BlockMask& mask = *options.blocks;
  const auto stride = [&](int64_t size, int dimension) {
    return size == 1 ? 0 : mask.kinds.stride(dimension);
  };
  return {.kinds = mask.kinds.const_data_ptr<uint8_t>(),
          .size = mask.block_size,
          .batch = stride(mask.batches, 0),
          .head = stride(mask.heads, 1),
          .row = mask.kinds.stride(2)};
}

Ranges ranges_of(const FusedOptions& options) {
  if (!options.ranges.defined()) return {};
  const bool shared = options.ranges.size(0) == 1;
  return {options.ranges.const_data_ptr<int32_t>(), shared ? 0 : options.ranges.stride(0)};
}

// Null where there is nothing to run.
std::shared_ptr<const flex::TileCode> code_of(const at::Tensor& q, const at::Tensor& k,
                                              const FusedOptions& options,
                                              flex::TileCode::Pass pass) {
  if (!options.mask.defined() && !options.score.defined()) return nullptr;
  return flex::tile_code(tile_code_options(q, k, options), pass);
}

Problem make_problem(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const FusedOptions& options, const flex::TileCode* code) {
  Problem p{.B = q.size(0),
            .H = q.size(1),
            .H_kv = k.size(1),
            .T = q.size(2),
            .S = k.size(2),
            .D = q.size(3),
            .left = 0,
            .right = 0,
            .scale = static_cast<float>(options.scale),
            .softmax_scale = options.score.defined() ? 1 : static_cast<float>(options.scale),
            .exact = options.need_logsumexp,
            .ranges = ranges_of(options),
            .blocks = blocks_of(options)};
  if (code) p.program = &code->program();
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

// Of run_units(), which numbers them from 0.
int64_t threads_for(int64_t count, bool serial) {
  return serial ? 1 : std::min<int64_t>(count, at::get_num_threads());
}

// for_each_unit() of body(unit, thread, scratch).
template <typename Body>
void run_units(int64_t count, int64_t scratch_bytes, bool serial, const Body& body) {
  const int64_t threads = threads_for(count, serial);
  const int64_t bytes = (scratch_bytes + 127) / 64 * 64;
  const at::Tensor memory = at::empty({threads * bytes + 64}, at::kByte);
  auto* begin = static_cast<char*>(memory.mutable_data_ptr());
  begin += (64 - reinterpret_cast<uintptr_t>(begin) % 64) % 64;
  for_each_unit(count, threads,
                [&](int64_t unit, int64_t thread) { body(unit, thread, begin + thread * bytes); });
}

// Multiplications of one product of q and k, if nothing is hidden.
int64_t products(const Problem& p) { return p.B * p.H * p.T * p.S * p.D; }

// How the forward pass is cut: blocks of columns, and ranges of keys when those are few. The query
// heads of a key head lie end to end as columns; with a program each stands alone.
struct ForwardPlan {
  int64_t heads, columns, column_block, column_blocks, splits, split_keys;

  ForwardPlan(const Problem& p, const Kernels& kernels)
      : heads(p.program ? p.B * p.H : p.B * p.H_kv), columns(p.B * p.H * p.T / heads) {
    const int64_t wanted = kUnitsPerThread * at::get_num_threads();
    const int64_t even = at::ceil_div(heads * columns, wanted);
    column_block = std::clamp(at::ceil_div(even, kernels.lanes) * kernels.lanes, kernels.lanes,
                              kernels.columns);
    column_blocks = at::ceil_div(columns, column_block);
    const int64_t units = heads * column_blocks;
    const bool few = units < at::get_num_threads();
    splits = few ? std::clamp<int64_t>(p.S / kFewestSplitKeys, 1, at::ceil_div(wanted, units)) : 1;
    split_keys = at::ceil_div(at::ceil_div(p.S, splits), int64_t{2}) * 2;
    splits = at::ceil_div(p.S, split_keys);
  }

  int64_t units() const { return heads * column_blocks * splits; }
  int64_t partial_size(const Problem& p) const { return column_block * (p.D + 2); }

  // Last columns first: under a causal mask they see most.
  ForwardUnit unit(const Problem& p, int64_t index) const {
    const int64_t split = index % splits, head = index / splits % heads;
    const int64_t block = column_blocks - 1 - index / splits / heads;
    const int64_t per_batch = heads / p.B, group = p.H / per_batch;
    const int64_t h = head % per_batch * group;
    ForwardUnit unit{};
    unit.b = head / per_batch, unit.h_kv = h / (p.H / p.H_kv);
    unit.columns = std::min(column_block, columns - block * column_block);
    unit.column = h % (p.H / p.H_kv) * p.T + block * column_block;
    unit.key_begin = split * split_keys;
    unit.key_end = std::min(p.S, unit.key_begin + split_keys);
    return unit;
  }
};

// Joins the parts of one column: o = sum f_i o_i / sum f_i l_i with f_i = e^(softmax_scale (m_i -
// m)).
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
  const auto factor = [&](int64_t i) {
    return std::exp(p.softmax_scale * (part_maximum(i) - shift));
  };
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
  put_denominator(p, (unit.b * p.H + h) * p.T + t, maximum, sum, std::log2(double{sum}));
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
  at::parallel_for(
      0, delta.numel(), at::ceil_div(kSerialProducts, p.D), [&](int64_t at, int64_t end) {
        while (at < end) {
          const int64_t head = at / p.T, row = at % p.T, rows = std::min(end - at, p.T - row);
          kernels.delta(p, d_lse, head / p.H, head % p.H, row, rows,
                        delta.mutable_data_ptr<float>());
          at += rows;
        }
      });
  return delta;
}

int64_t keys_per_unit(const Problem& p, const Kernels& kernels) {
  const int64_t even = at::ceil_div(p.B * p.H_kv * p.S, kUnitsPerThread * at::get_num_threads());
  int64_t keys =
      std::clamp(at::ceil_div(even, kernels.lanes) * kernels.lanes, kernels.lanes, kernels.keys);
  // No unit lies in a part of a block beside another block, where that can be.
  const auto fits = [&] { return p.blocks.size % keys == 0 || keys % p.blocks.size == 0; };
  while (p.blocks.kinds && !fits() && keys > kernels.lanes) keys -= kernels.lanes;
  return keys;
}

// Which unit adds to each tile of dq first; zeros in dq where none will.
at::Tensor first_turns(const Problem& p, int64_t queries, int64_t keys, const at::Tensor& dq) {
  const QueryTiles tiles(p, queries);
  const at::Tensor turns = at::empty({p.B * p.H * tiles.count()}, at::kInt);
  auto* turn = turns.mutable_data_ptr<int32_t>();
  for (int64_t head = 0; head < p.B * p.H; ++head) {
    for (int64_t i = 0; i < tiles.count(); ++i) {
      const Tile tile = {.b = head / p.H,
                         .h = head % p.H,
                         .row = tiles.row(i),
                         .rows = tiles.rows(i),
                         .key = 0,
                         .keys = keys};
      const int64_t first = next_unit(p, tile, 0);
      if (first * keys >= p.S) {
        dq.select(0, tile.b).select(0, tile.h).narrow(0, tile.row, tile.rows).zero_();
      }
      *turn++ = static_cast<int32_t>(first);
    }
  }
  return turns;
}

// The sums of captured tensors' gradients: every unit's own, added in the units' order.
class GradientTotals {
 public:
  GradientTotals(int64_t size, int64_t threads)
      : size_(size),
        chunks_(at::ceil_div(size, GradientSums::kChunk)),
        totals_(at::zeros({size}, at::kDouble)),
        sums_(at::zeros({threads, size}, at::kDouble)),
        touched_(at::zeros({threads, chunks_}, at::kByte)) {}

  const at::Tensor& totals() const { return totals_; }

  GradientSums of_thread(int64_t thread) const {
    if (size_ == 0) return {};
    return {sums_.mutable_data_ptr<double>() + thread * size_,
            touched_.mutable_data_ptr<uint8_t>() + thread * chunks_};
  }

  // Waits for the units before this one.
  void add(int64_t unit, int64_t thread) {
    if (size_ == 0) return;
    for (int spin = 0; turn_.load(std::memory_order_acquire) != unit;) {
      if (++spin > 1000) std::this_thread::yield();
    }
    const GradientSums own = of_thread(thread);
    auto* totals = totals_.mutable_data_ptr<double>();
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
      if (!own.touched[chunk]) continue;
      own.touched[chunk] = 0;
      const int64_t begin = chunk * GradientSums::kChunk;
      for (int64_t i = begin; i < std::min(size_, begin + GradientSums::kChunk); ++i) {
        totals[i] += own.sums[i];
        own.sums[i] = 0;
      }
    }
    turn_.store(unit + 1, std::memory_order_release);
  }

 private:
  const int64_t size_, chunks_;
  at::Tensor totals_, sums_, touched_;
  std::atomic<int64_t> turn_ = 0;
};

}  // namespace

FusedResult forward(const at::Tensor& q_any, const at::Tensor& k_any, const at::Tensor& v_any,
                    const FusedOptions& options, const KernelSet& set) {
  const at::Tensor q = with_dense_heads(q_any), k = with_dense_heads(k_any),
                   v = with_dense_heads(v_any);
  const Kernels& kernels = of_dtype(set, q);
  const auto code = code_of(q, k, options, flex::TileCode::Pass::kForward);
  Problem p = make_problem(q, k, v, options, code.get());
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
            [&](int64_t index, int64_t, char* scratch) {
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
  const auto code = code_of(q, k, options, flex::TileCode::Pass::kBackward);
  Problem p = make_problem(q, k, v, options, code.get());
  p.o = rows_of(result.output), p.d_o = rows_of(d_output);
  p.denominator = result.denominator.mutable_data_ptr<float>();
  const at::Tensor delta = compute_delta(p, d_logsumexp, kernels);
  p.delta = delta.const_data_ptr<float>();
  const auto like = [](const at::Tensor& x) { return with_dense_heads(at::empty_like(x)); };
  FusedGradients gradients = {like(q), like(k), like(v)};
  const at::Tensor dq_sums = at::empty({p.B, p.H, p.T, p.D}, at::kFloat);
  p.dq_sums = dq_sums.mutable_data_ptr<float>();
  p.dq = rows_of(gradients.dq), p.dk = rows_of(gradients.dk), p.dv = rows_of(gradients.dv);

  const int64_t keys = keys_per_unit(p, kernels), blocks = at::ceil_div(p.S, keys);
  const int64_t heads = p.B * p.H_kv;
  const bool serial = products(p) < kSerialProducts;
  const at::Tensor turn = first_turns(p, kernels.queries, keys, gradients.dq);
  GradientTotals totals(code ? code->gradient_size() : 0, threads_for(heads * blocks, serial));
  // Key blocks of different heads side by side, so that threads seldom wait for their turn.
  run_units(heads * blocks, kernels.scratch_bytes(p), serial,
            [&](int64_t index, int64_t thread, char* scratch) {
              const int64_t head = index % heads;
              const BackwardUnit unit = {
                  .b = head / p.H_kv,
                  .h_kv = head % p.H_kv,
                  .index = index / heads,
                  .keys_per_unit = keys,
                  .turn = reinterpret_cast<uint32_t*>(turn.mutable_data_ptr<int32_t>()),
                  .sums = totals.of_thread(thread)};
              kernels.backward(p, unit, scratch);
              totals.add(index, thread);
            });
  if (!code) return gradients;
  for (const flex::CapturedGradient& captured : code->captured()) {
    gradients.captured.push_back(totals.totals()
                                     .narrow(0, captured.offset, captured.count)
                                     .view(captured.sizes)
                                     .to(captured.dtype));
  }
  return gradients;
}

}  // namespace nanoflex::cpu
