// Masks and scores inside the fused CPU kernels of every instruction set, against the same
// expressions on whole tensors in fp64.
#include <ATen/Parallel.h>
#include <ATen/TensorIndexing.h>
#include <ATen/TensorOperators.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>
#include <random>

#include "attention/flex/evaluate.h"
#include "attention/flex/tile_code.h"
#include "attention/fused.h"
#include "attention/registry.h"
#include "tests/attention/flex_cases.h"
#include "tests/attention/random_expression.h"
#include "tests/attention/reference.h"

namespace nanoflex {
namespace {

using flex::Captured;
using flex::Expression;
using flex::trace_mask;
using flex::trace_score;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

class FlexCpu : public testing::TestWithParam<at::ScalarType> {};

TEST_P(FlexCpu, EveryInstructionSetIsAsExactAsWholeTensors) {
  at::manual_seed(20261121);
  for (const NamedFlex& named : flex_expressions()) {
    for (const FlexSizes& sizes : flex_sizes()) {
      const Flex flex = named.make(sizes);
      const Tensors inputs = flex_inputs(sizes, GetParam());
      const FlexResult truth = by_vanilla(inputs, flex, at::kDouble);
      const FlexResult plain = by_vanilla(inputs, flex, GetParam());
      for (const cpu::KernelSet& kernels : cpu::all_kernels()) {
        SCOPED_TRACE(c10::str(named.name, ", ", kernels.name, ", q ", inputs.q.sizes(), ", k ",
                              inputs.k.sizes()));
        for (const bool need_logsumexp : {false, true}) {
          expect_as_exact(by_kernels(kernels, inputs, flex, GetParam(), need_logsumexp), plain,
                          truth, flex, GetParam());
        }
        if (testing::Test::HasFailure()) return;
      }
    }
  }
}

// Scores that jump (floor, comparisons) say nothing where rounding decides on which side they are.
bool jumps(const Tensors& inputs, const Flex& flex, const FlexResult& truth) {
  Tensors moved = inputs;
  moved.q = inputs.q * (1 + 3e-6);
  const FlexResult other = by_vanilla(moved, flex, at::kDouble);
  const auto differ = [](const at::Tensor& a, const at::Tensor& b) {
    return !at::allclose(a, b, 1e-2, 1e-3);
  };
  bool found = differ(other.tensors.output, truth.tensors.output) ||
               differ(other.tensors.dq, truth.tensors.dq);
  for (size_t i = 0; i < truth.captured.size(); ++i) {
    found |= differ(other.captured[i], truth.captured[i]);
  }
  return found;
}

TEST(FlexCpuRandom, ExpressionsAreAsExactAsOnWholeTensors) {
  constexpr uint64_t kSeed = 20261121;
  std::mt19937_64 random_bits(kSeed);
  at::manual_seed(kSeed);
  const auto kernel_sets = cpu::all_kernels();
  int compared = 0;
  for (int i = 0; i < 150; ++i) {
    const FlexSizes sizes = flex_sizes()[random_bits() % flex_sizes().size()];
    if (sizes.T > sizes.S) continue;  // the generator's queries stand among the keys
    flex::NamedTensors tensors = flex::random_tensors(random_bits, sizes.B, sizes.H, sizes.S);
    for (auto& [name, tensor] : tensors) {
      if (tensor.is_floating_point()) tensor.requires_grad_();
    }
    flex::RandomExpression make = {.random = random_bits,
                                   .B = sizes.B,
                                   .H = sizes.H,
                                   .T = sizes.T,
                                   .S = sizes.S,
                                   .tensors = tensors};
    Flex flex = {.mask = make.mask(3), .score = make.score(3)};
    flex.tensors = flex::differentiable_tensors(flex.score);
    SCOPED_TRACE(c10::str("seed ", kSeed, ", number ", i, ", mask ", flex::to_text(flex.mask),
                          ", score ", flex::to_text(flex.score)));
    const Tensors inputs = flex_inputs(sizes, at::kFloat);
    if (!flex::why_no_tile_code({.mask = flex.mask,
                                 .score = flex.score,
                                 .B = sizes.B,
                                 .H = sizes.H,
                                 .T = sizes.T,
                                 .S = sizes.S})
             .empty()) {
      continue;
    }
    const FlexResult truth = by_vanilla(inputs, flex, at::kDouble);
    if (jumps(inputs, flex, truth)) continue;
    const cpu::KernelSet& kernels = kernel_sets[random_bits() % kernel_sets.size()];
    SCOPED_TRACE(kernels.name);
    expect_as_exact(by_kernels(kernels, inputs, flex, at::kFloat),
                    by_vanilla(inputs, flex, at::kFloat), truth, flex, at::kFloat);
    ++compared;
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_TRUE(compared > 50) << compared;
}

// Rows, heads and whole blocks that see nothing, and what a score makes of pairs that are masked.
TEST_P(FlexCpu, WhatIsMaskedNeverLeaks) {
  const FlexSizes sizes = {1, 2, 2, 200, 200, 16};
  const at::Tensor weight = at::randn({2}).requires_grad_();
  const Captured weights("weight", weight);
  const Flex flex = {.mask = flex::causal() & trace_mask([](auto, auto, auto q, auto kv) {
                               return (q < 60) | ((kv >= 70) & (kv < 190) & (q != 150));
                             }),
                     .score = trace_score([&](auto s, auto, auto h, auto q, auto kv) {
                       return select(kv % 50 == 49, -kInfinity,
                                     s * weights[h] + log(q - kv + 1) + sqrt(q - kv));
                     }),
                     .tensors = {weight}};
  const Tensors inputs = flex_inputs(sizes, GetParam());
  for (const cpu::KernelSet& kernels : cpu::all_kernels()) {
    SCOPED_TRACE(kernels.name);
    const FlexResult result = by_kernels(kernels, inputs, flex, GetParam());
    for (const at::Tensor& x : {result.tensors.output, result.tensors.dq, result.tensors.dk,
                                result.tensors.dv, result.captured.at(0)}) {
      EXPECT_TRUE(x.isfinite().all().item<bool>());
    }
    for (const int64_t blind : {60, 69, 150}) {
      EXPECT_EQ(result.tensors.output.select(2, blind).abs().max().item<double>(), 0);
      EXPECT_EQ(result.tensors.dq.select(2, blind).abs().max().item<double>(), 0);
      EXPECT_EQ(result.tensors.logsumexp.select(2, blind).max().item<double>(), -kInfinity);
    }
    EXPECT_EQ(result.tensors.dk.narrow(2, 60, 10).abs().max().item<double>(), 0);
  }
}

// A value that is not finite in one row of an input, with the queries and keys that it may change.
struct Poison {
  const char* name;
  at::Tensor Tensors::*input;
  int64_t row;
  bool is_key;
};

void expect_only_what_sees_it_changes(const cpu::KernelSet& kernels, const Tensors& clean,
                                      const Flex& flex, at::ScalarType dtype, const Poison& poison,
                                      bool need_logsumexp) {
  const at::Tensor mask =
      flex::evaluate(flex.mask, {.T = clean.q.size(2), .S = clean.k.size(2)})[0][0];
  const at::Tensor rows =
      poison.is_key ? mask.select(1, poison.row) : at::arange(clean.q.size(2)) == poison.row;
  const at::Tensor keys = (poison.is_key ? mask.index({rows}).any(0) : mask[poison.row])
                              .logical_or(poison.is_key ? at::arange(mask.size(1)) == poison.row
                                                        : at::zeros({mask.size(1)}, at::kBool));
  const FlexResult expected = by_kernels(kernels, clean, flex, dtype, need_logsumexp);
  for (const double value : {kInfinity, -kInfinity, std::nan("")}) {
    SCOPED_TRACE(value);
    Tensors bad = clean;
    bad.*poison.input = (clean.*poison.input).clone();
    (bad.*poison.input).select(2, poison.row).select(2, 3).fill_(value);
    const FlexResult result = by_kernels(kernels, bad, flex, dtype, need_logsumexp);
    const auto same = [&](at::Tensor Tensors::*x, const at::Tensor& changed) {
      const auto rest = [&](const FlexResult& of) {
        return (of.tensors.*x).index_select(2, changed.logical_not().nonzero().flatten());
      };
      return rest(result).equal(rest(expected));
    };
    EXPECT_TRUE(same(&Tensors::output, rows));
    EXPECT_TRUE(!need_logsumexp || same(&Tensors::logsumexp, rows));
    EXPECT_TRUE(same(&Tensors::dq, rows));
    EXPECT_TRUE(same(&Tensors::dk, keys));
    EXPECT_TRUE(same(&Tensors::dv, keys));
    for (size_t i = 0; i < result.captured.size(); ++i) {
      const at::Tensor rest = keys.logical_not();
      EXPECT_TRUE(
          result.captured[i].masked_select(rest).equal(expected.captured[i].masked_select(rest)));
    }
    if (std::isnan(value) && poison.input != &Tensors::d_output) {
      EXPECT_TRUE(result.tensors.output.index({at::indexing::Slice(), at::indexing::Slice(), rows})
                      .isnan()
                      .any(-1)
                      .all()
                      .item<bool>());
    }
  }
}

// Padding that holds anything, or a row that has gone wrong, is no harm to what does not see it.
TEST_P(FlexCpu, WhatIsNotFiniteReachesOnlyTheRowsThatSeeIt) {
  const int before = at::get_num_threads();
  at::set_num_threads(4);  // so that few queries of many keys are cut
  struct Shape {
    Flex flex;
    FlexSizes sizes;
  };
  const at::Tensor bias = at::randn({70}).requires_grad_();  // one a key
  const Captured biases("bias", bias);
  const Shape shapes[] = {
      {{.mask = flex::causal() & flex::window(30)}, {1, 2, 1, 150, 220, 24}},
      {{.mask = trace_mask([](auto, auto, auto q, auto kv) {
          return (q >= kv) & ((q - kv) % 3 == 0) & (q / 64 == kv / 64);
        })},
       {1, 2, 1, 150, 150, 40}},
      {{.mask = flex::causal(),
        .score = trace_score([&](auto s, auto, auto, auto, auto kv) { return s + biases[kv]; }),
        .tensors = {bias}},
       {1, 1, 1, 70, 70, 32}},
      {{.mask = trace_mask([](auto, auto, auto q, auto kv) { return (kv < 170) | (q == kv); })},
       {1, 1, 1, 200, 200, 48}},
      {{.mask = flex::causal()}, {1, 1, 1, 2, 1100, 16}}};
  for (const auto& [flex, sizes] : shapes) {
    const Tensors inputs = flex_inputs(sizes, GetParam());
    const int64_t row = sizes.T - sizes.T / 8 - 1, key = sizes.S - sizes.T + row;
    for (const Poison& poison :
         {Poison{"q", &Tensors::q, row, false}, Poison{"dO", &Tensors::d_output, row, false},
          Poison{"k", &Tensors::k, key, true}, Poison{"v", &Tensors::v, key, true}}) {
      for (const cpu::KernelSet& kernels : cpu::all_kernels()) {
        SCOPED_TRACE(c10::str(kernels.name, ", T ", sizes.T, ", S ", sizes.S, ", ", poison.name));
        for (const bool need_logsumexp : {false, true}) {
          expect_only_what_sees_it_changes(kernels, inputs, flex, GetParam(), poison,
                                           need_logsumexp);
        }
      }
    }
  }
  at::set_num_threads(before);
}

TEST_P(FlexCpu, DropsTheSameWeightsAndGivesTheSameBitsTwice) {
  const FlexSizes sizes = {2, 4, 2, 90, 140, 24};
  const at::Tensor slope = at::randn({4}).requires_grad_(),
                   bias = at::randn({4, 300}).requires_grad_();
  const Captured slopes("slope", slope), biases("bias", bias);
  const Spec spec = {.mask = flex::causal() & trace_mask([](auto, auto, auto q, auto kv) {
                               return (q - kv) % 3 != 1;
                             }),
                     .score = trace_score([&](auto s, auto, auto h, auto q, auto kv) {
                       return tanh(s) * slopes[h] + biases[h][q - kv + 150];
                     }),
                     .dropout = {.probability = 0.3, .seed = 77}};
  const Tensors inputs = flex_inputs(sizes, GetParam());
  const auto run = [&](const std::string& backend, at::ScalarType dtype) {
    const auto leaf = [&](const at::Tensor& x) { return x.to(dtype).detach().requires_grad_(); };
    const at::Tensor q = leaf(inputs.q), k = leaf(inputs.k), v = leaf(inputs.v);
    const at::Tensor output = attend(q, k, v, spec, backend).output;
    auto all = torch::autograd::grad({output}, {q, k, v, slope, bias}, {inputs.d_output.to(dtype)});
    all.push_back(output.detach());
    return all;
  };
  const auto truth = run("vanilla", at::kDouble), plain = run("vanilla", GetParam());
  const auto result = run("flex", GetParam()), again = run("flex", GetParam());
  const double unit = GetParam() == at::kFloat ? 0x1p-23 : 0x1p-7;
  for (size_t i = 0; i < truth.size(); ++i) {
    EXPECT_TRUE(result[i].equal(again[i])) << i;
    const double largest = std::max(10.0, truth[i].abs().max().item<double>());
    EXPECT_TRUE(flex_error(result[i], truth[i]) <=
                2 * flex_error(plain[i], truth[i]) + 4 * unit * largest)
        << i << ": " << flex_error(result[i], truth[i]) << ", plain "
        << flex_error(plain[i], truth[i]);
  }
}

TEST(FlexCpuRefusals, SayWhatTheKernelsCannotHold) {
  const at::Tensor q = at::zeros({1, 2, 8, 4});
  const Captured table("table", at::zeros({8}));
  const auto refused = [&](const Spec& spec) {
    return refusal([&] { attend(q, q, q, spec, "flex"); });
  };
  EXPECT_NE(refused({.score = trace_score(
                         [&](auto s, auto, auto, auto q, auto kv) { return s + table[q - kv]; })})
                .find("index 'q - kv' (-7 to 7) may lie outside of 'table', which has 8 elements "
                      "there; hold it with min and max; use vanilla"),
            std::string::npos);
  EXPECT_NE(refused({.mask = trace_mask(
                         [](auto, auto, auto q, auto kv) { return q * 1'000'000'000 > kv; })})
                .find("integer 'q * 1000000000' may leave 32 bits"),
            std::string::npos);
  const auto product = [&](auto s) {
    Expression all = Expression(table[0]);
    for (int i = 0; i < 300; ++i) all = all * table[i % 8];
    return s + all;
  };
  EXPECT_NE(
      refused({.score = trace_score([&](auto s, auto, auto, auto, auto) { return product(s); })})
          .find("the expressions and their derivatives have more than 20000 operations"),
      std::string::npos);
  EXPECT_EQ(refused({.block_size = 24}),
            "[attention] block_size must be a positive multiple of 16, is 24");
}

// 41 times fp32's 1 / 41 is less than 1, and -0 is 0 in integers: neither may decide what is read
// or seen otherwise than on whole tensors.
TEST(FlexCpuRounding, DecidesNothing) {
  const Tensors inputs = flex_inputs({1, 1, 1, 64, 64, 8}, at::kFloat);
  const at::Tensor q = inputs.q.to(at::kFloat), k = inputs.k.to(at::kFloat),
                   v = inputs.v.to(at::kFloat);
  const at::Tensor values = at::tensor({-3.0, 2.0}, at::kDouble).requires_grad_();
  const Captured table("table", values);
  const auto expect_same = [&](const Spec& spec, const char* what) {
    const auto run = [&](const char* backend) { return attend(q, k, v, spec, backend).output; };
    EXPECT_TRUE(at::allclose(run("flex"), run("vanilla"), 1e-5, 1e-5)) << what;
    const auto gradient = [&](const char* backend) {
      return torch::autograd::grad({run(backend).square().sum()}, {values})[0];
    };
    EXPECT_TRUE(at::allclose(gradient("flex"), gradient("vanilla"), 1e-4, 1e-5)) << what;
  };
  expect_same({.score = trace_score([&](auto s, auto, auto, auto, auto kv) {
                 return s + table[floor((kv + 41) / 41.0) - 1];
               })},
              "an index");
  expect_same({.score = trace_score([&](auto s, auto, auto, auto q, auto kv) {
                 return select((q - kv) / 41.0 >= 1.0, s - 5.0, s + table[0]);
               })},
              "a condition");
  expect_same({.mask = trace_mask([](auto, auto, auto, auto kv) { return 1.0 / -kv > 0; }),
               .score = trace_score([&](auto s, auto, auto, auto, auto) { return s * table[1]; })},
              "a zero's sign");
}

// A GPU has no ranges of keys: its recorded steps find their block masks through tensors of its
// own.
TEST(FlexCpuBlocks, AreOfDocumentsWhereverQueriesAreNotOnACpu) {
  const Captured document("document",
                          at::arange(256).div(50, "floor").to(at::kLong).view({1, 256}));
  const Spec spec = {.mask = trace_mask([&](auto b, auto, auto q, auto kv) {
                       return document[b][q] == document[b][kv];
                     })};
  const auto blocks = [&](at::Device device) {
    const at::Tensor q = at::empty({1, 2, 256, 16}, device);
    return fused_options(q, q, spec).blocks;
  };
  EXPECT_NE(blocks(at::kMeta), nullptr);
  EXPECT_EQ(blocks(at::kCPU), nullptr);
}

TEST(FlexCpuBlocks, ChangeNothingWhateverTheirSize) {
  const Tensors inputs = flex_inputs({1, 2, 1, 150, 170, 16}, at::kFloat);
  const at::Tensor q = inputs.q.to(at::kFloat), k = inputs.k.to(at::kFloat),
                   v = inputs.v.to(at::kFloat);
  const Expression mask = flex::causal() & trace_mask([](auto, auto h, auto q, auto kv) {
                            return (q / 40 == kv / 40) | (kv < 3 * h);
                          });
  const at::Tensor expected = attend(q, k, v, {.mask = mask}, "vanilla").output;
  for (const int64_t size : {16, 48, 128, 1024}) {
    const at::Tensor output = attend(q, k, v, {.mask = mask, .block_size = size}, "flex").output;
    EXPECT_TRUE(at::allclose(output, expected, 1e-5, 1e-5)) << size;
  }
}

// What is made of a spec is kept for the next call: its tensors may hold something else by then, or
// be trained.
TEST(FlexCpuKept, SeesWhatChangedInTheTensorsSince) {
  const Tensors inputs = flex_inputs({1, 2, 2, 40, 40, 8}, at::kFloat);
  const at::Tensor q = inputs.q.to(at::kFloat), k = inputs.k.to(at::kFloat),
                   v = inputs.v.to(at::kFloat);
  const at::Tensor document = (at::arange(40) / 8).to(at::kLong);
  const at::Tensor bias = at::randn({40}, at::kDouble);
  const Captured documents("document", document), biases("bias", bias);
  const Spec spec = {
      .mask =
          trace_mask([&](auto, auto, auto q, auto kv) { return documents[q] == documents[kv]; }),
      .score = trace_score([&](auto s, auto, auto, auto, auto kv) { return s + biases[kv]; })};
  const auto expect_same = [&](const char* when) {
    EXPECT_TRUE(at::allclose(attend(q, k, v, spec, "flex").output,
                             attend(q, k, v, spec, "vanilla").output, 1e-5, 1e-5))
        << when;
  };
  expect_same("at first");
  document.fill_(1);
  expect_same("with one document");
  bias.mul_(3);
  expect_same("with a larger bias");
  const at::Tensor output = attend(q.clone().requires_grad_(), k, v, spec, "flex").output;
  bias.mul_(2);
  EXPECT_THROW(output.sum().backward(), c10::Error) << "the backward pass would read another bias";
  bias.requires_grad_();
  const auto gradient = [&](const char* backend) {
    return torch::autograd::grad({attend(q, k, v, spec, backend).output.square().sum()}, {bias})[0];
  };
  EXPECT_TRUE(at::allclose(gradient("flex"), gradient("vanilla"), 1e-4, 1e-5));
}

// Each step of a training has documents of its own, and may compute a bias: both must go with it,
// and none may be taken for one that was where it is now.
TEST(FlexCpuKept, HoldsNoTensorAfterItsLastUse) {
  const Tensors inputs = flex_inputs({1, 2, 2, 40, 40, 8}, at::kFloat);
  const at::Tensor q = inputs.q.to(at::kFloat), k = inputs.k.to(at::kFloat),
                   v = inputs.v.to(at::kFloat);
  std::vector<c10::weak_intrusive_ptr<c10::StorageImpl>> storages;
  for (int step = 0; step < 8; ++step) {
    const at::ScalarType dtype = step % 2 == 0 ? at::kFloat : at::kDouble;  // as it lies, or copied
    const at::Tensor document = at::randint(3, {40}, at::kLong);
    const at::Tensor bias = at::randn({40}, dtype).requires_grad_();
    for (const at::Tensor* x : {&document, &bias}) {
      storages.push_back(x->storage().getWeakStorageImpl());
    }
    const Captured documents("document", document), biases("bias", bias);
    const Spec spec = {
        .mask = trace_mask([&](auto, auto, auto q, auto kv) {
          return (q / 16 == kv / 16) & (documents[q] == documents[kv]) & (documents[kv] + q >= kv);
        }),
        .score = trace_score([&](auto s, auto, auto, auto, auto kv) { return s + biases[kv]; })};
    const auto gradient = [&](const char* backend) {
      const at::Tensor output = attend(q, k, v, spec, backend).output;
      return torch::autograd::grad({output.square().sum()}, {bias})[0];
    };
    EXPECT_TRUE(at::allclose(gradient("flex"), gradient("vanilla"), 1e-4, 1e-5)) << step;
  }
  for (size_t i = 0; i < storages.size(); ++i) EXPECT_TRUE(storages[i].expired()) << i;
}

class LargestAllocation : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t bytes, size_t, size_t, c10::Device) override {
    largest_ = std::max(largest_, bytes);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t bytes() const { return largest_; }

 private:
  int64_t largest_ = 0;
};

// A large bias under little work on a machine with many cores.
TEST(FlexCpuMemory, GradientsOfABiasAreSummedByThoseThreadsOnlyThatHaveWork) {
  const int before = at::get_num_threads();
  at::set_num_threads(16);
  const Tensors inputs = flex_inputs({1, 1, 1, 20, 20, 8}, at::kFloat);
  const at::Tensor bias = at::randn({100'000}).requires_grad_();
  const Captured biases("bias", bias);
  const Spec spec = {
      .score = trace_score([&](auto s, auto, auto, auto, auto kv) { return s + biases[kv]; })};
  const at::Tensor output = attend(inputs.q.to(at::kFloat), inputs.k.to(at::kFloat),
                                   inputs.v.to(at::kFloat), spec, "flex")
                                .output;
  const auto largest = std::make_shared<LargestAllocation>();
  {
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, largest);
    output.sum().backward();
  }
  at::set_num_threads(before);
  const int64_t one_sum = 8 * bias.numel();
  EXPECT_GE(largest->bytes(), one_sum);
  EXPECT_LT(largest->bytes(), 2 * one_sum);
}

INSTANTIATE_TEST_SUITE_P(Types, FlexCpu, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

// What is kept of a mask for one size of the inputs must not serve another.
TEST(FlexCpuKept, OneMaskServesEveryBatchLengthAndScale) {
  const Expression own =
      flex::causal() & trace_mask([](auto, auto, auto q, auto kv) { return q / 16 == kv / 16; });
  for (const FlexSizes& sizes :
       {FlexSizes{1, 2, 1, 40, 40, 8}, {3, 2, 1, 70, 70, 8}, {2, 2, 1, 1, 90, 8}}) {
    const Tensors in = flex_inputs(sizes, at::kFloat);
    const at::Tensor q = in.q.to(at::kFloat), k = in.k.to(at::kFloat), v = in.v.to(at::kFloat);
    for (const std::optional<double> scale : {std::optional<double>(), std::optional(0.9)}) {
      const auto run = [&](const char* backend, const Expression& mask) {
        return attend(q, k, v, {.mask = mask, .scale = scale}, backend).output;
      };
      SCOPED_TRACE(c10::str("q ", q.sizes(), ", k ", k.sizes()));
      EXPECT_TRUE(at::allclose(run("flex", own), run("vanilla", own), 1e-5, 1e-5));
      EXPECT_TRUE(
          at::allclose(run("flash", flex::causal()), run("vanilla", flex::causal()), 1e-5, 1e-5));
    }
  }
}

}  // namespace
}  // namespace nanoflex
