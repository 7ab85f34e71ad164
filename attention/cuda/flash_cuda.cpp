#include "attention/cuda/flash_cuda.h"

#include <stdexcept>

#ifdef NANOFLEX_CUDA
#include <ATen/Context.h>
#include <ATen/ceil_div.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>

#include "attention/cuda/captured_gradients.h"
#include "attention/cuda/launch.h"
#include "attention/cuda/nvrtc.h"
#include "attention/cuda/params.h"
#include "attention/cuda/program_cuda.h"
#include "attention/philox.h"
#endif

namespace nanoflex {

#ifndef NANOFLEX_CUDA

namespace {
constexpr char kNoCuda[] =
    "this build has no CUDA kernels; build with -DNANOFLEX_CUDA=ON where the CUDA wheels are";
}

std::string why_no_flash_cuda(const at::Tensor&) { return kNoCuda; }

FusedResult forward_cuda(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                         const FusedOptions&) {
  throw std::invalid_argument(std::string("[attention] ") + kNoCuda);
}

FusedGradients backward_cuda(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                             const FusedResult&, const at::Tensor&, const at::Tensor&,
                             const FusedOptions&) {
  throw std::invalid_argument(std::string("[attention] ") + kNoCuda);
}

#else

namespace {

using cuda::AttentionParams;
using cuda::BackwardParams;
using cuda::ForwardParams;
using cuda::Grid;
using cuda::Kernel;
using cuda::KernelOptions;
using cuda::Program;

// Positions are 32-bit sums of lengths and band edges.
constexpr int64_t kMaxLength = int64_t{1} << 28;

int64_t blocks_of(int64_t length, int64_t size) { return at::ceil_div(length, size); }

// A dimension of size 1 may claim any stride.
cuda::Strides strides_of(const at::Tensor& x) {
  const auto stride = [&x](int64_t dim) { return x.size(dim) == 1 ? 0 : x.stride(dim); };
  return {stride(0), stride(1), stride(2)};
}

bool rows_are_aligned(const at::Tensor& x) {
  const int64_t chunk = 16 / x.element_size();
  const cuda::Strides s = strides_of(x);
  return (x.stride(3) == 1 || x.size(3) == 1) && s.b % chunk == 0 && s.h % chunk == 0 &&
         s.t % chunk == 0 && reinterpret_cast<uintptr_t>(x.data_ptr()) % 16 == 0;
}

// [.., D] in rows that hold D rounded up to 8, as params.h asks of what kernels write.
at::Tensor padded_rows(const at::Tensor& like) {
  std::vector<int64_t> sizes = like.sizes().vec();
  sizes[3] = blocks_of(sizes[3], 8) * 8;
  return at::empty(sizes, like.options()).narrow(3, 0, like.size(3));
}

at::Tensor readable(const at::Tensor& x) {
  return rows_are_aligned(x) ? x : padded_rows(x).copy_(x);
}

// Uninitialised, in x's layout where its rows can hold what kernels write.
at::Tensor writable_like(const at::Tensor& x) {
  if (x.size(3) % 8 != 0) return padded_rows(x);
  const at::Tensor same = at::empty_like(x);
  return rows_are_aligned(same) ? same : padded_rows(x);
}

int band_edge(int64_t edge) {
  return static_cast<int>(std::clamp<int64_t>(edge, -cuda::kUnbounded, cuda::kUnbounded));
}

KernelOptions kernel_options(const at::Tensor& q, const FusedOptions& options,
                             const Program& program) {
  const cuda::Type type = cuda::type_of(q.scalar_type());
  return {.type = type,
          .D = static_cast<int>(q.size(3)),
          .gpu = cuda::gpu_of(cuda::current_device().capability),
          .dropout = options.dropout.probability > 0,
          .tf32 = type == cuda::Type::float32 && at::globalContext().allowTF32CuBLAS(),
          .program = program.text()};
}

// Heads whose streamed tensors (two of them, `length` rows) fill half the L2 cache.
int heads_in_cache(const at::Tensor& x, int64_t heads) {
  const int64_t bytes = 2 * x.size(2) * x.size(3) * x.element_size();
  const int64_t fitting = cuda::current_device().l2_bytes / 2 / std::max<int64_t>(bytes, 1);
  return static_cast<int>(std::clamp<int64_t>(fitting, 1, std::max<int64_t>(heads, 1)));
}

void check(const at::Tensor& q, const at::Tensor& k) {
  if (const std::string reason = why_no_flash_cuda(q); !reason.empty()) {
    throw std::invalid_argument("[attention] flash on a GPU: " + reason);
  }
  if (std::max(q.size(2), k.size(2)) >= kMaxLength) {
    throw std::invalid_argument("[attention] flash takes T and S below 268435456, not " +
                                std::to_string(std::max(q.size(2), k.size(2))));
  }
}

/// q, k and v as kernels read them.
struct Operands {
  at::Tensor q, k, v;
  AttentionParams params;

  Operands(const at::Tensor& q_in, const at::Tensor& k_in, const at::Tensor& v_in,
           const FusedOptions& options)
      : q(readable(q_in)), k(readable(k_in)), v(readable(v_in)) {
    params = {.q = q.data_ptr(),
              .k = k.data_ptr(),
              .v = v.data_ptr(),
              .q_strides = strides_of(q),
              .k_strides = strides_of(k),
              .v_strides = strides_of(v),
              .B = static_cast<int>(q.size(0)),
              .H = static_cast<int>(q.size(1)),
              .H_kv = static_cast<int>(k.size(1)),
              .T = static_cast<int>(q.size(2)),
              .S = static_cast<int>(k.size(2)),
              .D = static_cast<int>(q.size(3)),
              .left = band_edge(options.left),
              .right = band_edge(options.right),
              .scale = static_cast<float>(options.scale),
              .seed = options.dropout.seed,
              .dropout_threshold = dropout_threshold(options.dropout.probability),
              .keep_scale = static_cast<float>(1 / (1 - options.dropout.probability)),
              .heads_per_section = 1};
  }
  int group() const { return params.H / params.H_kv; }
};

/// How many blocks to split the keys over, and the kernel for it; none: forward_kernel does it all.
struct Split {
  int parts = 0;
  Kernel kernel;
};

Split choose_split(const Operands& x, const KernelOptions& options) {
  constexpr int64_t kFewRows = 16, kKeysPerPart = 256, kMaxParts = 256;
  if (options.type == cuda::Type::float32 || options.dropout) return {};
  const AttentionParams& p = x.params;
  const int64_t rows = int64_t{p.T} * x.group(),
                processors = cuda::current_device().multiprocessors;
  const bool few = rows <= kFewRows;
  Kernel kernel = split_kernel(options, few);
  const int64_t blocks = blocks_of(rows, kernel.rows) * p.H_kv * p.B;
  // One-warp blocks fit several to a multiprocessor.
  const int64_t wanted = few ? 4 * processors : 2 * processors;
  const int64_t parts =
      std::min({wanted / std::max<int64_t>(blocks, 1), blocks_of(p.S, kKeysPerPart), kMaxParts});
  // For few rows forward_kernel computes a hundred: over few keys, that is less than a launch.
  if (parts < 2 && !(few && p.S > kKeysPerPart)) return {};
  return {static_cast<int>(std::max<int64_t>(parts, 1)), std::move(kernel)};
}

void forward_split(const Split& split, const Operands& x, const KernelOptions& options,
                   const Program& program, ForwardParams params) {
  const AttentionParams& p = x.params;
  const int64_t rows = int64_t{p.B} * p.H * p.T, packed = int64_t{p.T} * x.group();
  const auto floats = x.q.options().dtype(at::kFloat);
  const at::Tensor partial_o = at::empty({split.parts, rows, cuda::padded_head_size(p.D)}, floats);
  const at::Tensor partial_logsumexp = at::empty({split.parts, rows}, floats);
  params.attention.heads_per_section = heads_in_cache(x.k, int64_t{p.B} * p.H_kv);
  params.splits = split.parts;
  params.partial_o = partial_o.data_ptr<float>();
  params.partial_logsumexp = partial_logsumexp.data_ptr<float>();
  const int64_t blocks = blocks_of(packed, split.kernel.rows) * p.H_kv * p.B;
  launch(split.kernel, {.x = blocks, .y = split.parts}, {&params, program.arguments()});
  const Kernel combine = combine_kernel(options);
  launch(combine, {.x = blocks_of(rows, combine.rows)}, {&params});
}

}  // namespace

std::string why_no_flash_cuda(const at::Tensor& q) {
  if (!q.is_cuda()) return "its tensors are not on a GPU";
  if (q.scalar_type() != at::kBFloat16 && q.scalar_type() != at::kHalf &&
      q.scalar_type() != at::kFloat) {
    return std::string("it takes bfloat16, float16 and float32, not ") + toString(q.scalar_type());
  }
  if (q.size(3) > 256) return "head_dim must be at most 256, is " + std::to_string(q.size(3));
  const c10::cuda::CUDAGuard guard(q.device());
  const int capability = cuda::current_device().capability;
  if (capability < 80) {
    return "it needs compute capability 8.0 or newer, this GPU has " +
           std::to_string(capability / 10) + "." + std::to_string(capability % 10);
  }
  try {
    cuda::Nvrtc::get();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

FusedResult forward_cuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const FusedOptions& options) {
  check(q, k);
  const c10::cuda::CUDAGuard guard(q.device());
  const Operands x(q, k, v, options);
  const AttentionParams& p = x.params;
  const at::Tensor output = writable_like(q);
  const at::Tensor logsumexp = at::empty({p.B, p.H, p.T}, q.options().dtype(at::kFloat));
  const bool is_fp32 = q.scalar_type() == at::kFloat;
  const at::Tensor denominator =
      is_fp32 ? at::empty({2, p.B, p.H, p.T}, logsumexp.options()) : at::Tensor();
  ForwardParams params = {.attention = p,
                          .o = output.data_ptr(),
                          .o_strides = strides_of(output),
                          .logsumexp = logsumexp.data_ptr<float>(),
                          .denominator = is_fp32 ? denominator.data_ptr<float>() : nullptr,
                          .splits = 1,
                          .partial_o = nullptr,
                          .partial_logsumexp = nullptr};
  const Program program(options, q.device());
  const KernelOptions kernel = kernel_options(q, options, program);
  if (const Split split = choose_split(x, kernel); split.parts > 0) {
    forward_split(split, x, kernel, program, params);
    return {output, logsumexp};
  }
  params.attention.heads_per_section =
      std::min(heads_in_cache(x.k, int64_t{p.B} * p.H_kv) * x.group(), p.B * p.H);
  const Kernel forward = forward_kernel(kernel);
  launch(forward, {.x = blocks_of(p.T, forward.rows) * p.H * p.B}, {&params, program.arguments()});
  return {output, logsumexp, denominator};
}

namespace {

// dk and dv, from a block per key block and key head or, where those would be too few for this GPU,
// per query head, whose results are then summed.
void backward_keys(const std::vector<Kernel>& kernels, const Operands& x, const Program& program,
                   BackwardParams params, const FusedGradients& result) {
  const AttentionParams& p = x.params;
  const int64_t key_blocks = blocks_of(p.S, kernels[0].rows);
  const bool few = key_blocks * p.H_kv * p.B < 2 * cuda::current_device().multiprocessors;
  const int parts = few ? x.group() : 1;
  at::Tensor dk = result.dk, dv = result.dv;
  if (parts > 1) {
    const int64_t row = blocks_of(p.D, 8) * 8;
    dk = at::empty({p.B, p.H, p.S, row}, x.k.options()).narrow(3, 0, p.D);
    dv = at::empty({p.B, p.H, p.S, row}, x.k.options()).narrow(3, 0, p.D);
  }
  params.head_parts = parts;
  params.dk = dk.data_ptr();
  params.dv = dv.data_ptr();
  params.dk_strides = strides_of(dk);
  params.dv_strides = strides_of(dv);
  params.attention.heads_per_section =
      std::max(1, heads_in_cache(x.q, int64_t{p.B} * p.H) * parts / x.group());
  for (const Kernel& keys : kernels) {
    launch(keys, {.x = key_blocks * p.H_kv * parts * p.B}, {&params, program.arguments()});
  }
  if (parts == 1) return;
  result.dk.copy_(dk.unflatten(1, {p.H_kv, parts}).sum(2));
  result.dv.copy_(dv.unflatten(1, {p.H_kv, parts}).sum(2));
}

}  // namespace

FusedGradients backward_cuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const FusedResult& result, const at::Tensor& d_output,
                             const at::Tensor& d_logsumexp_given, const FusedOptions& options) {
  check(q, k);
  const c10::cuda::CUDAGuard guard(q.device());
  const Operands x(q, k, v, options);
  const AttentionParams& p = x.params;
  const at::Tensor o = readable(result.output), d_o = readable(d_output);
  const at::Tensor logsumexp = result.logsumexp.to(at::kFloat).contiguous();
  const at::Tensor d_logsumexp =
      d_logsumexp_given.defined() ? d_logsumexp_given.to(at::kFloat).contiguous() : at::Tensor();
  const at::Tensor delta = at::empty_like(logsumexp), shift = at::empty_like(logsumexp);
  FusedGradients gradients = {writable_like(q), writable_like(k), writable_like(v)};
  BackwardParams params = {
      .attention = p,
      .o = o.data_ptr(),
      .d_o = d_o.data_ptr(),
      .o_strides = strides_of(o),
      .d_o_strides = strides_of(d_o),
      .logsumexp = logsumexp.data_ptr<float>(),
      .denominator = result.denominator.defined() ? result.denominator.data_ptr<float>() : nullptr,
      .d_logsumexp = d_logsumexp.defined() ? d_logsumexp.data_ptr<float>() : nullptr,
      .delta = delta.data_ptr<float>(),
      .shift = shift.data_ptr<float>(),
      .dq = gradients.dq.data_ptr(),
      .dk = nullptr,
      .dv = nullptr,
      .dq_strides = strides_of(gradients.dq),
      .dk_strides = {},
      .dv_strides = {}};
  const Program program(options, q.device());
  const cuda::BackwardKernels kernels = backward_kernels(kernel_options(q, options, program));
  launch(kernels.delta, {.x = blocks_of(int64_t{p.B} * p.H * p.T, kernels.delta.rows)}, {&params});
  params.attention.heads_per_section =
      std::min(heads_in_cache(x.k, int64_t{p.B} * p.H_kv) * x.group(), p.B * p.H);
  launch(kernels.queries, {.x = blocks_of(p.T, kernels.queries.rows) * p.H * p.B},
         {&params, program.arguments()});
  backward_keys(kernels.keys, x, program, params, gradients);
  gradients.captured =
      cuda::captured_gradients(q, k, v, result, d_output, d_logsumexp_given, options);
  return gradients;
}

#endif

}  // namespace nanoflex
