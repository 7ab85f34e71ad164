#include "tests/attention/accuracy.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace nanoflex {
namespace {

// Rows that see nothing are -inf on both sides and carry no error.
double error(const at::Tensor& result, const at::Tensor& truth) {
  const at::Tensor x = result.to(at::kDouble);
  return at::where(x == truth, at::zeros_like(x), (x - truth).abs()).max().item<double>();
}

double largest(const at::Tensor& truth) {
  return truth.masked_fill(truth == -std::numeric_limits<double>::infinity(), 0)
      .abs()
      .max()
      .item<double>();
}

double epsilon(at::ScalarType dtype) {
  if (dtype == at::kDouble) return std::numeric_limits<double>::epsilon();
  return dtype == at::kFloat  ? std::numeric_limits<float>::epsilon()
         : dtype == at::kHalf ? 0x1p-10
                              : 0x1p-7;
}

// The largest number that is summed on the way: terms of a score, and of its gradient, which is the
// difference of dO v^T and its mean over the row, times scale times an element of q or k.
double largest_term(const Tensors& in) {
  const int64_t group = in.q.size(1) / in.k.size(1);
  const at::Tensor k = in.k.repeat_interleave(group, 1), v = in.v.repeat_interleave(group, 1);
  const double scale = 1 / std::sqrt(static_cast<double>(in.q.size(3)));
  const double score = largest(at::matmul(in.q.abs(), k.abs().transpose(-2, -1)));
  const double d_weight = largest(at::matmul(in.d_output, v.transpose(-2, -1)));
  return scale * std::max(score, d_weight * std::max(largest(in.q), largest(in.k)));
}

void expect_close(const std::string& what, at::ScalarType type, const at::Tensor& result,
                  const at::Tensor& plain, const at::Tensor& truth, double largest_term,
                  double score) {
  EXPECT_EQ(result.sizes(), truth.sizes()) << what;
  EXPECT_EQ(result.scalar_type(), type) << what;
  const double unit = epsilon(type) * std::max(largest(truth), largest_term);
  const double rounded =
      std::min(epsilon(type), epsilon(at::kFloat)) * score * std::max(largest(truth), 1.0);
  const double bound = 2 * error(plain, truth) + unit + rounded, found = error(result, truth);
  EXPECT_TRUE(found <= bound) << what << ": error " << found << ", bound " << bound;
}

}  // namespace

void expect_all_close(const Tensors& result, const Tensors& plain, const Tensors& truth,
                      double score) {
  const at::ScalarType dtype = plain.output.scalar_type();
  const double given = std::max(largest(truth.d_output), largest_term(truth));
  expect_close("output", dtype, result.output, plain.output, truth.output, given, score);
  expect_close("dq", dtype, result.dq, plain.dq, truth.dq, given, score);
  expect_close("dk", dtype, result.dk, plain.dk, truth.dk, given, score);
  expect_close("dv", dtype, result.dv, plain.dv, truth.dv, given, score);
  if (!result.logsumexp.defined()) return;
  expect_close("logsumexp", dtype == at::kDouble ? at::kDouble : at::kFloat, result.logsumexp,
               plain.logsumexp, truth.logsumexp, given, score);
}

}  // namespace nanoflex
