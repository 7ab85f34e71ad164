// The head's kernel in the emulator, against its formula in fp64.
#include "tests/simt/ptx.h"
//
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "model/cuda/head_loss.cuh"
#include "tests/simt/flash_memory.h"

namespace nanoflex::cuda {

template <typename T>
__global__ void head_kernel(const HeadParams params) {
  head_loss<T>(params);
}

}  // namespace nanoflex::cuda

namespace nanoflex::simt {
namespace {

constexpr double kSoftcap = 15;

/// Rows of logits as a matrix product left them, [rows, V], and their targets.
struct Rows {
  int V = 1;
  std::vector<int64_t> targets;
  double z_loss = 0;
  Numbers logits = {};

  size_t count() const { return targets.size(); }
};

struct HeadResults {
  Numbers losses, gradients;
};

/// By the formula, in fp64 or, as a plain computation would, in fp32.
template <typename Number>
HeadResults by_formula(const Rows& rows) {
  HeadResults results;
  for (size_t row = 0; row < rows.count(); ++row) {
    std::vector<Number> tanh, logits;
    Number largest = -kSoftcap, sum = 0;
    for (int j = 0; j < rows.V; ++j) {
      tanh.push_back(std::tanh(Number(rows.logits[row * rows.V + j]) / Number(kSoftcap)));
      logits.push_back(Number(kSoftcap) * tanh.back());
      largest = std::max(largest, logits.back());
    }
    for (const Number logit : logits) sum += std::exp(logit - largest);
    const Number logsumexp = largest + std::log(sum), z_loss = Number(rows.z_loss);
    const int64_t target = rows.targets[row];
    const bool counts = target >= 0;
    results.losses.push_back(counts ? logsumexp - logits[target] + z_loss * logsumexp * logsumexp
                                    : Number(0));
    for (int j = 0; j < rows.V; ++j) {
      const Number weight = std::exp(logits[j] - logsumexp) * (1 + 2 * z_loss * logsumexp);
      const Number slope = (weight - Number(j == target)) * (1 - tanh[j] * tanh[j]);
      results.gradients.push_back(counts ? slope : Number(0));
    }
  }
  return results;
}

/// Some targets at the ends of rows, and every third none.
Rows random_rows(int count, int V, double magnitude) {
  Rows rows = {.V = V, .targets = {}};
  std::mt19937 random(static_cast<unsigned>(V));
  std::normal_distribution<double> normal(0, magnitude);
  for (int row = 0; row < count; ++row) {
    const int64_t ends[] = {0, V - 1, -1};
    rows.targets.push_back(row < 3 ? ends[row] : row % 3 == 2 ? -1 : int64_t(random() % V));
    for (int j = 0; j < V; ++j) rows.logits.push_back(normal(random));
  }
  return rows;
}

/// What lies between the rows is NaN, and must stay.
template <typename T>
std::vector<T> in_memory(const Rows& rows, int64_t stride) {
  std::vector<T> memory(rows.count() * stride, Dtype<T>::from(std::nan("")));
  for (size_t row = 0; row < rows.count(); ++row) {
    for (int j = 0; j < rows.V; ++j) {
      memory[row * stride + j] = Dtype<T>::from(rows.logits[row * rows.V + j]);
    }
  }
  return memory;
}

template <typename T>
HeadResults by_kernel(const Rows& rows, bool gradients = true) {
  const int64_t stride = (rows.V + 7) / 8 * 8;
  Buffer<T> logits(in_memory<T>(rows, stride), gradients ? Access::read_write : Access::read);
  const Buffer<int64_t> targets(rows.targets, Access::read);
  Buffer<float> losses(rows.count());
  launch({.grid = {static_cast<unsigned>(rows.count())},
          .block = {cuda::kHeadThreads},
          .shared_bytes = cuda::kHeadSharedBytes},
         cuda::head_kernel<T>,
         cuda::HeadParams{.logits = logits.data(),
                          .stride = stride,
                          .targets = targets.data(),
                          .losses = losses.data(),
                          .V = rows.V,
                          .softcap = static_cast<float>(kSoftcap),
                          .z_loss = static_cast<float>(rows.z_loss),
                          .gradients = gradients});
  HeadResults results = {numbers(losses), {}};
  for (size_t row = 0; row < rows.count(); ++row) {
    for (int j = 0; j < stride; ++j) {
      const double number = Dtype<T>::number(logits.data()[row * stride + j]);
      if (j < rows.V) {
        results.gradients.push_back(number);
      } else {
        EXPECT_TRUE(std::isnan(number)) << "row " << row << " was written beyond its end";
      }
    }
  }
  return results;
}

/// At most twice the plain computation's error, plus one ulp: see STYLE.md.
template <typename T>
void expect_close(Rows rows) {
  SCOPED_TRACE(std::to_string(rows.count()) + " x " + std::to_string(rows.V));
  for (double& logit : rows.logits) logit = rounded<T>(logit);
  const HeadResults truth = by_formula<double>(rows), got = by_kernel<T>(rows);
  HeadResults plain = by_formula<float>(rows);
  for (double& gradient : plain.gradients) gradient = rounded<T>(gradient);
  // A loss is the difference of a logsumexp and a logit, both in fp32.
  EXPECT_TRUE(largest_error(got.losses, truth.losses) <=
              2 * largest_error(plain.losses, truth.losses) + ulp({kSoftcap}, 0x1p-23));
  EXPECT_TRUE(largest_error(got.gradients, truth.gradients) <=
              2 * largest_error(plain.gradients, truth.gradients) +
                  ulp(truth.gradients, Dtype<T>::kEpsilon));
}

template <typename T>
class HeadLossKernel : public testing::Test {};
using Types = testing::Types<__nv_bfloat16, __half, float>;
TYPED_TEST_SUITE(HeadLossKernel, Types);

TYPED_TEST(HeadLossKernel, IsItsFormulaForAnyVocabulary) {
  for (const int V : {1, 2, 7, 8, 33, 1000}) expect_close<TypeParam>(random_rows(5, V, 3));
  expect_close<TypeParam>(random_rows(2, 4100, 3));  // more than all threads take at once
}

TYPED_TEST(HeadLossKernel, PullsTheLogsumexpTowardsZero) {
  Rows rows = random_rows(4, 100, 3);
  rows.z_loss = 0.03;
  expect_close<TypeParam>(rows);
}

TYPED_TEST(HeadLossKernel, StandsLogitsOfTenThousand) {
  expect_close<TypeParam>(random_rows(4, 60, 1e4));
}

// A model that is sure and right: its loss and gradient are in what little is left.
TYPED_TEST(HeadLossKernel, KeepsWhatASureRowHasLeft) {
  Rows rows = {.V = 40, .targets = {3}, .z_loss = 0, .logits = Numbers(40, -6)};
  rows.logits[3] = 6;
  const HeadResults truth = by_formula<double>(rows), got = by_kernel<TypeParam>(rows);
  EXPECT_TRUE(std::abs(got.losses[0] / truth.losses[0] - 1) <= 1e-4) << got.losses[0];
  EXPECT_TRUE(std::abs(got.gradients[3] / truth.gradients[3] - 1) <=
              1e-4 + Dtype<TypeParam>::kEpsilon)
      << got.gradients[3];
}

TYPED_TEST(HeadLossKernel, IgnoredRowsHaveNoLossAndNoGradientWhateverTheyHold) {
  Rows rows = random_rows(2, 33, 3);
  rows.targets = {-1, -1};
  rows.logits[5] = std::nan("");
  const HeadResults got = by_kernel<TypeParam>(rows);
  for (const double loss : got.losses) EXPECT_EQ(loss, 0);
  for (const double gradient : got.gradients) EXPECT_EQ(gradient, 0);
}

TYPED_TEST(HeadLossKernel, LeavesLogitsAloneWhereOnlyLossesAreAsked) {
  Rows rows = random_rows(3, 33, 3);
  const HeadResults all = by_kernel<TypeParam>(rows),
                    only_losses = by_kernel<TypeParam>(rows, false);
  EXPECT_EQ(only_losses.losses, all.losses);
}

TYPED_TEST(HeadLossKernel, ATargetOutsideOfTheVocabularyIsNaNAndTouchesNoOtherRow) {
  Rows rows = random_rows(3, 33, 3);
  rows.targets = {1, 33, 2};
  const HeadResults got = by_kernel<TypeParam>(rows);
  EXPECT_TRUE(std::isfinite(got.losses[0]) && std::isfinite(got.losses[2]));
  EXPECT_TRUE(std::isnan(got.losses[1]));
}

}  // namespace
}  // namespace nanoflex::simt
