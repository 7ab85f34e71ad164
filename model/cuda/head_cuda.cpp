#include "model/cuda/head_cuda.h"

#include <stdexcept>

#ifdef NANOFLEX_CUDA
#include <ATen/ceil_div.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>

#include "attention/cuda/launch.h"
#include "model/cuda/head_kernel.h"
#include "model/cuda/head_params.h"
#include "model/head.h"
#endif

namespace nanoflex {

#ifndef NANOFLEX_CUDA

bool has_head_cuda(const at::Tensor&) { return false; }

HeadResult head_cuda(const at::Tensor&, const at::Tensor&, const at::Tensor&, const HeadOptions&) {
  throw std::invalid_argument(
      "[model] this build has no CUDA kernels; build with -DNANOFLEX_CUDA=ON where the CUDA wheels "
      "are");
}

#else

namespace {

// Logits alive at once, 64 MB in bf16: enough rows to keep a GPU busy, few beside what it holds.
constexpr int64_t kCudaChunkElements = int64_t{1} << 25;
constexpr int64_t kRowElements = 8;  // rows begin at multiples of 16 bytes in every dtype

// Rows of a chunk, so that no chunk is much smaller than the others.
int64_t chunk_rows(int64_t N, int64_t V) {
  const int64_t most = std::max<int64_t>(1, kCudaChunkElements / V);
  return std::max<int64_t>(1, at::ceil_div(N, at::ceil_div(N, most)));
}

}  // namespace

bool has_head_cuda(const at::Tensor& x) {
  const at::ScalarType type = x.scalar_type();
  return x.is_cuda() && (type == at::kBFloat16 || type == at::kHalf || type == at::kFloat);
}

HeadResult head_cuda(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
                     const HeadOptions& options) {
  const c10::cuda::CUDAGuard guard(x.device());
  const int64_t N = x.size(0), V = weight.size(0),
                stride = at::ceil_div(V, kRowElements) * kRowElements;
  const auto floats = x.options().dtype(at::kFloat);
  HeadResult result = {.losses = at::empty({N}, floats), .dx = {}, .dweight = {}};
  if (options.gradients) {
    result.dx = at::empty_like(x);
    result.dweight = at::zeros(weight.sizes(), floats);
  }
  if (N == 0) return result;
  const int64_t step = chunk_rows(N, V);
  const at::Tensor buffer = at::empty({step, stride}, x.options()).narrow(1, 0, V);
  const cuda::Kernel kernel = cuda::head_kernel(cuda::type_of(x.scalar_type()));
  for (int64_t row = 0; row < N; row += step) {
    const int64_t rows = std::min(step, N - row);
    const at::Tensor x_rows = x.narrow(0, row, rows);
    at::Tensor logits = buffer.narrow(0, 0, rows);
    at::mm_out(logits, x_rows, weight.t());
    const cuda::HeadParams params = {.logits = logits.mutable_data_ptr(),
                                     .stride = stride,
                                     .targets = targets.const_data_ptr<int64_t>() + row,
                                     .losses = result.losses.mutable_data_ptr<float>() + row,
                                     .V = static_cast<int>(V),
                                     .softcap = static_cast<float>(kLogitSoftcap),
                                     .z_loss = static_cast<float>(options.z_loss),
                                     .gradients = options.gradients};
    cuda::launch(kernel, {.x = rows}, {&params});
    if (!options.gradients) continue;
    // The factor comes last: it would take from fp16 what is small.
    at::Tensor dx = result.dx.narrow(0, row, rows);
    at::addmm_out(dx, dx, logits, weight, /*beta=*/0, options.factor);
    at::addmm_out(result.dweight, result.dweight, logits.t(), x_rows, at::kFloat, /*beta=*/1,
                  options.factor);
  }
  return result;
}

#endif

}  // namespace nanoflex
