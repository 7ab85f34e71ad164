// The CUDA source of masks and scores as text; tests/simt/flex runs it.
#include "attention/flex/cuda_source.h"

#include <gtest/gtest.h>

#include <cstring>

#include "attention/flex/masks.h"

namespace nanoflex::flex {
namespace {

std::string text_of(const Expression& mask, const Expression& score = {}) {
  return cuda_source(mask, score).text;
}

Expression document_and_window(int64_t B, int64_t S, int64_t n) {
  const Captured document("document", at::zeros({B, S}, at::kLong));
  return window(n) & trace_mask([&](auto b, auto, auto q, auto kv) {
           return document[b][q] == document[b][kv];
         });
}

Expression capped_slope(double slope, double cap) {
  return trace_score([&](auto s, auto, auto, auto q, auto kv) {
    return cap * tanh((s + slope * (kv - q)) / cap);
  });
}

// What is compiled once serves every batch, length, window and slope.
TEST(CudaSource, ConstantsAndShapesAreArguments) {
  EXPECT_EQ(text_of(document_and_window(2, 10, 4)), text_of(document_and_window(7, 300, 250)));
  EXPECT_EQ(text_of({}, capped_slope(0.5, 30)), text_of({}, capped_slope(-7, 49)));
  EXPECT_NE(text_of(window(4)), text_of(!window(4)));
}

TEST(CudaSource, NothingIsNoProgram) { EXPECT_EQ(text_of({}), ""); }

TEST(CudaSource, EqualPartsAreComputedOnce) {
  const Expression score =
      trace_score([](auto s, auto, auto, auto, auto) { return tanh(s) * exp(tanh(s)) + tanh(s); });
  const std::string text = text_of({}, score);
  size_t count = 0;
  for (size_t at = text.find("tanh_of"); at != std::string::npos;
       at = text.find("tanh_of", at + 1)) {
    ++count;
  }
  EXPECT_EQ(count, 2) << text;  // once for the score, once beside the derivative
}

TEST(CudaSource, ArgumentsLieAsTheKernelReadsThem) {
  const CudaSource source = cuda_source(document_and_window(2, 10, 4), {});
  ASSERT_EQ(source.tensors.size(), 1u);
  ASSERT_NE(source.text.find("ProgramArguments<1, 2>"), std::string::npos) << source.text;
  const std::vector<char> bytes = source.arguments({.row = 5, .size = 128});
  cuda::ProgramArguments<1, 2> arguments;
  ASSERT_EQ(bytes.size(), sizeof(arguments));
  std::memcpy(&arguments, bytes.data(), sizeof(arguments));
  EXPECT_EQ(arguments.blocks.row, 5);
  EXPECT_EQ(arguments.blocks.size, 128);
  EXPECT_EQ(arguments.tensors[0], source.tensors[0].const_data_ptr());
  EXPECT_EQ(source.tensors[0].scalar_type(), at::kInt);
  for (size_t i = 0; i < source.words.size(); ++i) EXPECT_EQ(arguments.words[i], source.words[i]);
}

TEST(CudaSource, SaysWhyItCannot) {
  const Expression mask = document_and_window(2, 10, 4);
  EXPECT_EQ(why_no_cuda_source(mask, {}, at::kCPU), "");
  EXPECT_EQ(why_no_cuda_source(mask, {}, at::Device("cuda:0")),
            "tensor 'document' is on cpu, must be on cuda:0");
  Expression product = score_value();
  for (int i = 0; i < 400; ++i) product = product * (1.5 + i);
  EXPECT_EQ(why_no_cuda_source({}, product, at::kCPU),
            "the expressions have more constants and tensors than a CUDA kernel takes");
  Expression any = causal();
  for (int i = 0; i < 400; ++i) any = any | (key_index() % (3 + i) == 1);
  EXPECT_EQ(why_no_cuda_source(any, {}, at::kCPU),
            "the expressions have more than 1000 operations");
}

}  // namespace
}  // namespace nanoflex::flex
