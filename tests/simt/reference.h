// Attention on plain numbers, for the kernel tests: the truth in fp64, and the plain computation in
// the kernel's own dtype, whose error sets the bound. No tensors: these tests link no LibTorch.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "attention/cuda/params.h"

namespace nanoflex::simt {

using Numbers = std::vector<double>;

/// One problem. Tensors are held as [B, H, T, D] whatever the kernel's layout.
struct Problem {
  int B = 1, H = 1, H_kv = 1, T = 1, S = 1, D = 64;
  int left = cuda::kUnbounded, right = 0;
  double dropout = 0;
  bool time_first = false;  ///< kernel tensors lie as [B, T, H, D]
  double magnitude = 1;     ///< of q
  uint64_t seed = 1;
  /// What a program adds, over positions: a mask beside the band, a changed score and its
  /// derivative.
  std::function<bool(int q, int kv)> mask = {};
  std::function<double(double s, int q, int kv)> score = {}, derivative = {};

  double scale() const { return 1 / std::sqrt(static_cast<double>(D)); }
  size_t query_row(int b, int h, int i) const { return (size_t(b) * H + h) * T + i; }
  size_t key_row(int b, int h, int j) const { return (size_t(b) * H_kv + h / (H / H_kv)) * S + j; }
  size_t queries() const { return size_t(B) * H * T * D; }
  size_t keys() const { return size_t(B) * H_kv * S * D; }
  bool sees(int i, int j) const {
    const int64_t distance = int64_t(j) - (i + S - T);
    return distance >= -int64_t(left) && distance <= right && (!mask || mask(i + S - T, j));
  }
  std::string name() const;
};

/// 25 problems, or NANOFLEX_SHAPES of the environment: lengths up to 150, up to 6 heads in groups,
/// any band, also one that ends before or begins behind the query, both layouts; the seed is in
/// name().
std::vector<Problem> random_problems();

struct Inputs {
  Numbers q, k, v, d_o, d_lse;
};
struct Results {
  Numbers o, lse, dq, dk, dv;
  Numbers denominator = {};  ///< of fp32 kernels: see cuda::ForwardParams
  /// Of a truth: the largest number that a gradient is a sum of, an element of dO or, since dO v^T
  /// cancels against its mean, that times scale times an element of k or q.
  double dq_term = 0, dk_term = 0, dv_term = 0;  // the largest that each gradient sums
};

/// Rounds a number as the dtype of a plain computation would.
using Rounding = std::function<double(double)>;

/// Normal numbers that `round` leaves alone.
Inputs random_inputs(const Problem& p, const Rounding& round);

/// Attention by its definition, in fp64: the truth. With a `rounding`, the plain computation in
/// that dtype: every tensor of it is rounded, and products are summed in fp32.
Results plain_attention(const Problem& p, const Inputs& x, const Rounding& rounding = {});

/// The largest difference; NaN when there is one anywhere. Infinities of one sign agree.
double largest_error(const Numbers& a, const Numbers& truth);

/// One unit in the last place of the largest finite number of x, for a dtype of relative spacing
/// `epsilon`.
double ulp(const Numbers& x, double epsilon);

}  // namespace nanoflex::simt
