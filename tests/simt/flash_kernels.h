// Launches the attention kernels in the emulator on a Problem of reference.h.
#pragma once

#include "tests/simt/ptx.h"
//
#include <sstream>

#include "attention/cuda/flash_backward_keys.cuh"
#include "attention/cuda/flash_backward_queries.cuh"
#include "attention/cuda/flash_decode.cuh"
#include "attention/cuda/flash_forward.cuh"
#include "attention/cuda/flash_fp32_backward.cuh"
#include "tests/simt/flash_memory.h"

namespace nanoflex::cuda {

// Arguments: none, or the one of a program that is made of some.
template <typename Config, typename Features, typename Program, typename... Arguments>
__global__ void forward_kernel(const ForwardParams params, Arguments... arguments) {
  flash_forward<Config, Features>(params, Program{arguments...});
}
template <typename T, int kHeadSize>
__global__ void combine_kernel(const ForwardParams params) {
  flash_combine<T, kHeadSize>(params);
}
template <typename Config, bool kDropout, typename Program, typename... Arguments>
__global__ void forward_fp32_kernel(const ForwardParams params, Arguments... arguments) {
  flash_forward_fp32<Config, kDropout>(params, Program{arguments...});
}
template <typename Config, bool kKeysOwn, bool kDropout, typename Program, typename... Arguments>
__global__ void backward_fp32_kernel(const BackwardParams params, Arguments... arguments) {
  flash_backward_fp32<Config, kKeysOwn, kDropout>(params, Program{arguments...});
}
template <typename T>
__global__ void delta_kernel(const BackwardParams params) {
  flash_delta<T>(params);
}
template <typename Config, bool kDropout, typename Program, typename... Arguments>
__global__ void backward_queries_kernel(const BackwardParams params, Arguments... arguments) {
  flash_backward_queries<Config, kDropout>(params, Program{arguments...});
}
template <typename Config, bool kDropout, typename Program, typename... Arguments>
__global__ void backward_keys_kernel(const BackwardParams params, Arguments... arguments) {
  flash_backward_keys<Config, kDropout>(params, Program{arguments...});
}

}  // namespace nanoflex::cuda

namespace nanoflex::simt {

/// What the plain computation and the kernel may differ from the truth by: see STYLE.md.
struct Bound {
  const Results &truth, &plain;
  double epsilon;

  /// "" when `result` is at most twice as far from the truth as the plain computation, plus one ulp
  /// of the largest number that comes out or, in a gradient, is summed on the way.
  std::string why_not(Numbers Results::*member, const Numbers& result) const {
    const double error = largest_error(result, truth.*member);
    const double term = member == &Results::dq   ? truth.dq_term
                        : member == &Results::dk ? truth.dk_term
                        : member == &Results::dv ? truth.dv_term
                                                 : 0;
    const double unit = std::max(ulp(truth.*member, epsilon), ulp({term}, epsilon));
    const double allowed = 2 * largest_error(plain.*member, truth.*member) + unit;
    if (error <= allowed) return "";
    std::ostringstream text;
    text << "error " << error << " > " << allowed;
    return text.str();
  }
};

inline unsigned blocks_of(int rows, int size) { return (rows + size - 1) / size; }

/// The memory of a forward pass, and its parameters.
template <typename T>
struct DeviceForward {
  DeviceInputs<T> inputs;
  DeviceTensor<T> o;
  Buffer<float> lse, denominator;
  cuda::ForwardParams params;

  DeviceForward(const Problem& p, const Inputs& x)
      : inputs(p, x),
        o(p, p.H, p.T),
        lse(size_t(p.B) * p.H * p.T),
        denominator(2 * size_t(p.B) * p.H * p.T) {
    params = {.attention = inputs.params,
              .o = o.buffer.data(),
              .o_strides = o.strides,
              .logsumexp = lse.data(),
              .denominator = denominator.data(),
              .splits = 1,
              .partial_o = nullptr,
              .partial_logsumexp = nullptr};
  }
  Results results() const {
    Results results{.o = o.numbers(), .lse = numbers(lse), .dq = {}, .dk = {}, .dv = {}};
    if constexpr (sizeof(T) == 4) results.denominator = numbers(denominator);
    return results;
  }
};

/// o and logsumexp by the 16-bit forward kernel.
template <typename Config, typename Features, typename Program = cuda::NoProgram,
          typename... Arguments>
Results run_forward(const Problem& p, const Inputs& x, const Arguments&... arguments) {
  DeviceForward<typename Config::T> device(p, x);
  const int heads = Features::kPacked ? p.H_kv : p.H, rows = p.T * p.H / heads;
  launch({.grid = {blocks_of(rows, Config::kRows) * heads * p.B},
          .block = {Config::kThreads},
          .shared_bytes = Config::kSharedBytes},
         cuda::forward_kernel<Config, Features, Program, Arguments...>, device.params,
         arguments...);
  return device.results();
}

/// The same with keys split over blocks, heads packed.
template <typename Config, typename Program = cuda::NoProgram, typename... Arguments>
Results run_split(const Problem& p, const Inputs& x, int splits, const Arguments&... arguments) {
  using T = typename Config::T;
  DeviceForward<T> device(p, x);
  const size_t rows = size_t(p.B) * p.H * p.T;
  Buffer<float> partial_o(splits * rows * Config::kD), partial_lse(splits * rows);
  device.params.splits = splits;
  device.params.partial_o = partial_o.data();
  device.params.partial_logsumexp = partial_lse.data();
  launch(
      {.grid = {blocks_of(p.T * (p.H / p.H_kv), Config::kRows) * p.H_kv * p.B,
                static_cast<unsigned>(splits)},
       .block = {Config::kThreads},
       .shared_bytes = Config::kSharedBytes},
      cuda::forward_kernel<Config, cuda::ForwardFeatures<false, true, true>, Program, Arguments...>,
      device.params, arguments...);
  launch({.grid = {blocks_of(static_cast<int>(rows), 4)}, .block = {128}},
         cuda::combine_kernel<T, Config::kHeadSize>, device.params);
  return device.results();
}

template <int D, bool kTf32, bool kDropout, typename Program = cuda::NoProgram,
          typename... Arguments>
Results run_forward_fp32(const Problem& p, const Inputs& x, const Arguments&... arguments) {
  DeviceForward<float> device(p, x);
  constexpr cuda::Shape32 kShape = cuda::forward_shape32(D);
  launch({.grid = {blocks_of(p.T, kShape.own) * p.H * p.B},
          .block = {cuda::kThreads32},
          .shared_bytes = cuda::forward_shared_bytes32(D, kShape)},
         cuda::forward_fp32_kernel<cuda::Config32<D, kTf32>, kDropout, Program, Arguments...>,
         device.params, arguments...);
  return device.results();
}

/// The memory of a backward pass, and its parameters.
template <typename T>
struct DeviceBackward {
  Problem problem;
  int head_parts;
  DeviceInputs<T> inputs;
  DeviceTensor<T> o, d_o, dq, dk, dv;
  Buffer<float> lse, denominator, d_lse, delta, shift;
  cuda::BackwardParams params;

  DeviceBackward(const Problem& p, const Inputs& x, const Results& forward, int head_parts)
      : problem(p),
        head_parts(head_parts),
        inputs(p, x),
        o(p, p.H, p.T, forward.o),
        d_o(p, p.H, p.T, x.d_o),
        dq(p, p.H, p.T),
        dk(p, p.H_kv * head_parts, p.S),
        dv(p, p.H_kv * head_parts, p.S),
        lse(std::vector<float>(forward.lse.begin(), forward.lse.end()), Access::read),
        denominator(std::vector<float>(forward.denominator.begin(), forward.denominator.end()),
                    Access::read),
        d_lse(std::vector<float>(x.d_lse.begin(), x.d_lse.end()), Access::read),
        delta(size_t(p.B) * p.H * p.T),
        shift(size_t(p.B) * p.H * p.T) {
    params = {.attention = inputs.params,
              .o = o.buffer.data(),
              .d_o = d_o.buffer.data(),
              .o_strides = o.strides,
              .d_o_strides = d_o.strides,
              .logsumexp = lse.data(),
              .denominator = denominator.data(),
              .d_logsumexp = d_lse.data(),
              .delta = delta.data(),
              .shift = shift.data(),
              .dq = dq.buffer.data(),
              .dk = dk.buffer.data(),
              .dv = dv.buffer.data(),
              .dq_strides = dq.strides,
              .dk_strides = dk.strides,
              .dv_strides = dv.strides};
    params.head_parts = head_parts;
    launch({.grid = {blocks_of(8 * p.B * p.H * p.T, 128)}, .block = {128}}, cuda::delta_kernel<T>,
           params);
  }
  Results results() const {
    return {.o = {},
            .lse = {},
            .dq = dq.numbers(),
            .dk = sum_of_parts(dk.numbers()),
            .dv = sum_of_parts(dv.numbers())};
  }

  /// As the host sums [B, H_kv, parts, S, D] over the parts.
  Numbers sum_of_parts(const Numbers& x) const {
    const size_t head = size_t(problem.S) * problem.D;
    Numbers sums(x.size() / head_parts);
    for (size_t i = 0; i < x.size(); ++i) {
      sums[i / (head * head_parts) * head + i % head] += x[i];
    }
    for (double& sum : sums) sum = rounded<T>(sum);
    return sums;
  }
};

template <typename Config, bool kDropout, typename Program, typename... Arguments>
void launch_backward_keys(const Problem& p, const cuda::BackwardParams& params,
                          const Arguments&... arguments) {
  launch({.grid = {blocks_of(p.S, Config::kKeys) * p.H_kv * params.head_parts * p.B},
          .block = {Config::kThreads},
          .shared_bytes = Config::kSharedBytes},
         cuda::backward_keys_kernel<Config, kDropout, Program, Arguments...>, params, arguments...);
}

/// dq, dk and dv by the 16-bit backward kernels, from the results of a forward pass.
template <typename T, int D, cuda::Gpu gpu, bool kDropout, typename Program = cuda::NoProgram,
          typename... Arguments>
Results run_backward(const Problem& p, const Inputs& x, const Results& forward, int head_parts = 1,
                     const Arguments&... arguments) {
  DeviceBackward<T> device(p, x, forward, head_parts);
  using Queries = cuda::BackwardQueriesConfig<T, D, cuda::backward_queries_shape(D, gpu, kDropout)>;
  launch({.grid = {blocks_of(p.T, Queries::kRows) * p.H * p.B},
          .block = {Queries::kThreads},
          .shared_bytes = Queries::kSharedBytes},
         cuda::backward_queries_kernel<Queries, kDropout, Program, Arguments...>, device.params,
         arguments...);
  constexpr cuda::Shape kShape = cuda::backward_keys_shape(D, gpu, kDropout);
  if constexpr (cuda::backward_keys_at_once(D)) {
    using Keys = cuda::BackwardKeysConfig<T, D, kShape, true, true>;
    launch_backward_keys<Keys, kDropout, Program>(p, device.params, arguments...);
  } else {
    using Keys = cuda::BackwardKeysConfig<T, D, kShape, true, false>;
    using Values = cuda::BackwardKeysConfig<T, D, kShape, false, true>;
    launch_backward_keys<Keys, kDropout, Program>(p, device.params, arguments...);
    launch_backward_keys<Values, kDropout, Program>(p, device.params, arguments...);
  }
  return device.results();
}

template <int D, bool kTf32, bool kDropout, typename Program = cuda::NoProgram,
          typename... Arguments>
Results run_backward_fp32(const Problem& p, const Inputs& x, const Results& forward,
                          int head_parts = 1, const Arguments&... arguments) {
  DeviceBackward<float> device(p, x, forward, head_parts);
  static constexpr cuda::Shape32 kShape = cuda::backward_shape32(D);
  using Config = cuda::Config32<D, kTf32>;
  const auto options = [](unsigned blocks) {
    return LaunchOptions{.grid = {blocks},
                         .block = {cuda::kThreads32},
                         .shared_bytes = cuda::backward_shared_bytes32(D, kShape)};
  };
  const LaunchOptions queries = options(blocks_of(p.T, kShape.own) * p.H * p.B);
  const LaunchOptions keys = options(blocks_of(p.S, kShape.own) * p.H_kv * head_parts * p.B);
  launch(queries, cuda::backward_fp32_kernel<Config, false, kDropout, Program, Arguments...>,
         device.params, arguments...);
  launch(keys, cuda::backward_fp32_kernel<Config, true, kDropout, Program, Arguments...>,
         device.params, arguments...);
  return device.results();
}

}  // namespace nanoflex::simt
