#include "attention/flex/block_mask.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <thread>

#include "attention/flex/evaluate.h"
#include "attention/flex/masks.h"
#include "attention/flex/parse.h"
#include "tests/attention/mask_generator.h"
#include "tests/attention/reference.h"

namespace nanoflex::flex {
namespace {

at::Tensor evaluated(const Expression& mask, const BlockMaskOptions& o) {
  return evaluate(mask, {.B = o.B, .H = o.H, .T = o.T, .S = o.S})
      .expand({o.B, o.H, o.T, o.S})
      .contiguous();
}

// Kinds [B, H, query blocks, key blocks] by looking at every pair.
at::Tensor exhaustive_kinds(const at::Tensor& pairs, int64_t block_size) {
  const int64_t B = pairs.size(0), H = pairs.size(1), T = pairs.size(2), S = pairs.size(3);
  const auto blocks = [&](int64_t n) { return (n + block_size - 1) / block_size; };
  const at::Tensor kinds = at::empty({B, H, blocks(T), blocks(S)}, at::kByte);
  for (int64_t row = 0; row < blocks(T); ++row) {
    for (int64_t column = 0; column < blocks(S); ++column) {
      const at::Tensor block =
          pairs.slice(2, row * block_size, std::min(T, (row + 1) * block_size))
              .slice(3, column * block_size, std::min(S, (column + 1) * block_size))
              .flatten(2);
      const at::Tensor kind = block.any(-1).to(at::kByte) + block.all(-1).to(at::kByte);
      kinds.select(2, row).select(2, column).copy_(kind);
    }
  }
  return kinds;
}

void expect_exact(const Expression& mask, const BlockMaskOptions& options) {
  const at::Tensor pairs = evaluated(mask, options);
  const BlockMask blocks = make_block_mask(mask, options);
  const at::Tensor expected = exhaustive_kinds(pairs, options.block_size);
  EXPECT_TRUE(blocks.kinds.expand_as(expected).equal(expected))
      << "B " << options.B << " H " << options.H << " T " << options.T << " S " << options.S << "\n"
      << blocks.kinds << expected;
  const double share = pairs.to(at::kDouble).mean().item<double>();
  EXPECT_TRUE(std::abs(visible_share(mask, options) - share) <= 1e-12);
}

// Prime and even lengths, T != S, one block and many, one batch or head and several.
TEST(BlockMask, IsTheExhaustiveAnswerForRandomMasks) {
  std::mt19937_64 random(11);
  const auto pick = [&](int64_t n) { return static_cast<int64_t>(random() % n); };
  for (uint64_t seed = 0; seed < 1500; ++seed) {
    MaskGenerator generator(seed);
    const Expression mask = generator.truth(static_cast<int>(seed % 5));
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + to_text(mask));
    expect_exact(mask, {.B = 1 + pick(2),
                        .H = 1 + pick(2),
                        .T = 1 + pick(70),
                        .S = 1 + pick(70),
                        .block_size = 16 * (1 + pick(2))});
    if (testing::Test::HasFailure()) return;
  }
}

at::Tensor spans(int64_t B, int64_t S, int64_t span) {
  const at::Tensor documents = at::empty({B, S}, at::kLong);
  for (int64_t b = 0; b < B; ++b) {
    documents[b] = at::arange(S).add(7 * b).floor_divide(span + b);
  }
  return documents;
}

TEST(BlockMask, IsExactForWhatIsInUse) {
  const at::Tensor documents = spans(2, 300, 50);
  const at::Tensor bits = at::rand({200, 300}, at::make_generator<at::CPUGeneratorImpl>(5)) < 0.02;
  const Captured bit("bit", bits);
  const std::vector<Expression> masks = {
      causal(),
      full(),
      !full(),
      causal() & window(64),
      parse_mask("causal & (window(31) | !window(90))"),
      bind(document(), {{"document", documents}}),
      bind(causal() & document(), {{"document", documents.to(at::kInt)}}),
      trace_mask([](auto, auto, auto q, auto kv) { return (q >= kv) | (kv < 40); }),
      trace_mask([](auto, auto h, auto q, auto kv) { return q / 32 == kv / 32 + h; }),
      trace_mask([](auto, auto, auto q, auto kv) { return (q - kv) - (q - kv) == 0; }),
      trace_mask([](auto, auto, auto q, auto kv) { return exp((q - kv) * 0.0) == 1.0; }),
      trace_mask([](auto, auto, auto q, auto kv) { return (q - kv) * 0.1 <= 3.0; }),
      trace_mask([&](auto, auto, auto q, auto kv) { return bit[max(q - 100, 0)][kv]; }),
  };
  for (const Expression& mask : masks) {
    SCOPED_TRACE(to_text(mask));
    expect_exact(mask, {.B = 2, .H = 2, .T = 300, .S = 300, .block_size = 32});
    expect_exact(mask, {.B = 1, .T = 17, .S = 300, .block_size = 64});
  }
  expect_exact(causal(), {.T = 300, .S = 47, .block_size = 32});
}

TEST(BlockMask, ListsHoldTheBlocksOfEachKind) {
  const BlockMaskOptions options = {.B = 2, .H = 3, .T = 90, .S = 130, .block_size = 16};
  const Expression mask = trace_mask([](auto b, auto h, auto q, auto kv) {
    return (q >= kv) & (q - kv <= 30 + 20 * h) & (kv > b);
  });
  const BlockMask blocks = make_block_mask(mask, options);
  EXPECT_EQ(blocks.batches, 2);
  EXPECT_EQ(blocks.heads, 3);
  EXPECT_EQ(blocks.query_blocks, 6);
  EXPECT_EQ(blocks.key_blocks, 9);
  const auto expect_lists = [](const BlockLists& lists, const at::Tensor& listed) {
    const int64_t rows = listed.size(0) * listed.size(1) * listed.size(2);
    const at::Tensor flat = listed.reshape({rows, -1});
    ASSERT_EQ(lists.offsets.numel(), rows + 1);
    EXPECT_EQ(lists.offsets.scalar_type(), at::kInt);
    for (int64_t row = 0; row < rows; ++row) {
      const at::Tensor found = lists.blocks.slice(0, lists.offsets[row].item<int64_t>(),
                                                  lists.offsets[row + 1].item<int64_t>());
      EXPECT_TRUE(found.to(at::kLong).equal(flat[row].nonzero().flatten())) << "row " << row;
    }
  };
  const at::Tensor by_keys = blocks.kinds.transpose(2, 3);
  expect_lists(blocks.partial_keys, blocks.kinds == 1);
  expect_lists(blocks.full_keys, blocks.kinds == 2);
  expect_lists(blocks.partial_queries, by_keys == 1);
  expect_lists(blocks.full_queries, by_keys == 2);
}

TEST(BlockMask, HasOneBatchAndHeadWhereTheMaskDependsOnNeither) {
  const BlockMaskOptions options = {.B = 3, .H = 5, .T = 40, .S = 40, .block_size = 16};
  const auto kinds = [&](const Expression& mask) { return make_block_mask(mask, options).kinds; };
  EXPECT_EQ(kinds(causal()).sizes(), (std::vector<int64_t>{1, 1, 3, 3}));
  EXPECT_EQ(kinds(key_index() > batch_index()).sizes(), (std::vector<int64_t>{3, 1, 3, 3}));
  EXPECT_EQ(kinds(key_index() > head_index()).sizes(), (std::vector<int64_t>{1, 5, 3, 3}));
}

// The cost of building is in blocks, and for masks with large even parts in rows of blocks.
TEST(BlockMask, CostsNoMoreThanItsCutBlocks) {
  const int64_t T = 65536, rows = T / 128;
  const BlockMask blocks = make_block_mask(causal(), {.T = T, .S = T});
  EXPECT_EQ(blocks.partial_keys.blocks.numel(), rows);
  EXPECT_EQ(blocks.full_keys.blocks.numel(), rows * (rows - 1) / 2);
  EXPECT_LT(blocks.boxes_judged, 12 * rows);
  const BlockMask band = make_block_mask(causal() & window(1000), {.T = T, .S = T});
  EXPECT_LT(band.boxes_judged, 30 * band.partial_keys.blocks.numel());
  const Expression packed = bind(causal() & document(), {{"document", spans(1, T, 250)}});
  const BlockMask documents = make_block_mask(packed, {.T = T, .S = T});
  EXPECT_LT(documents.boxes_judged, 30 * documents.partial_keys.blocks.numel());
}

// As evaluate() refuses: the same masks for the same tensor.
TEST(BlockMask, RefusesReadsOutsideOfATensorWhereEvaluateDoes) {
  const BlockMaskOptions options = {.B = 2, .H = 2, .T = 20, .S = 23, .block_size = 16};
  const Captured table("table", at::arange(19));
  int refused = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    MaskGenerator generator(seed);
    const Expression index = generator.integer(static_cast<int>(seed % 4));
    const Expression mask = causal() & (table[index + generator.pick(3)] > 3);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + to_text(mask));
    const std::string expected = refusal([&] { evaluated(mask, options); });
    const std::string found = refusal([&] { make_block_mask(mask, options); });
    EXPECT_EQ(found.empty(), expected.empty()) << found << " and " << expected;
    EXPECT_EQ(found.substr(0, 40), expected.substr(0, 40));
    refused += found.empty() ? 0 : 1;
  }
  EXPECT_GT(refused, 50);
  EXPECT_LT(refused, 290);
}

TEST(BlockMask, SaysWhatItCannotTake) {
  const auto refused = [](const Expression& mask, const BlockMaskOptions& options) {
    return refusal([&] { make_block_mask(mask, options); });
  };
  EXPECT_EQ(refused(causal(), {.block_size = 100}),
            "[block mask] block_size must be a positive multiple of 16, is 100");
  EXPECT_EQ(refused(causal(), {.block_size = -16}),
            "[block mask] block_size must be a positive multiple of 16, is -16");
  EXPECT_EQ(refused(causal(), {.T = 0, .S = 7}),
            "[block mask] B, H, T and S must be at least 1, are 1, 1, 0 and 7");
  EXPECT_EQ(refused(full(), {.T = 1 << 20, .S = 1 << 20, .block_size = 16}),
            "[block mask] there would be 4.29497e+09 blocks, at most 2147483647; use larger blocks "
            "than 16");
  EXPECT_EQ(refused(document(), {}),
            "[expression] tensor 'document' is not bound; bind() it before use");
  EXPECT_EQ(refused(query_index(), {}),
            "[expression] a mask must be a truth value, 'q' is a integer");
  EXPECT_EQ(refused(score_value() > 0, {}),
            "[expression] a mask cannot read the score: 'score > 0'");
  const Expression packed = bind(document(), {{"document", at::zeros({2, 9}, at::kLong)}});
  EXPECT_EQ(refused(packed, {.B = 2, .T = 4, .S = 10}),
            "[expression] tensor 'document' [2, 9] is read at 9 in dimension 1 (index 'q'); use 0 "
            "to 8");
  EXPECT_EQ(refusal([] { visible_share(causal(), {.block_size = 8}); }),
            "[block mask] block_size must be a positive multiple of 16, is 8");
}

TEST(BlockMaskCache, MakesAMaskOncePerShape) {
  const BlockMaskOptions options = {.T = 70, .S = 70, .block_size = 16};
  const auto first = block_mask(causal(), options);
  EXPECT_EQ(first, block_mask(query_index() >= key_index(), options));
  EXPECT_NE(first, block_mask(causal(), {.T = 70, .S = 71, .block_size = 16}));
  EXPECT_NE(first, block_mask(causal(), {.T = 70, .S = 70, .block_size = 32}));
  EXPECT_NE(first, block_mask(window(3), options));
  EXPECT_EQ(first, block_mask(causal(), options));
  for (int64_t T = 1; T <= 64; ++T) block_mask(full(), {.T = T, .S = T, .block_size = 16});
  EXPECT_NE(first, block_mask(causal(), options));
}

TEST(BlockMaskCache, MakesItAgainWhenATensorChanged) {
  const BlockMaskOptions options = {.T = 64, .S = 64, .block_size = 16};
  const at::Tensor documents = spans(1, 64, 16);
  const Expression mask = bind(document(), {{"document", documents}});
  const auto first = block_mask(mask, options);
  EXPECT_EQ(first, block_mask(bind(document(), {{"document", documents}}), options));
  EXPECT_EQ(first->full_keys.blocks.numel(), 4);
  const auto other = block_mask(bind(document(), {{"document", documents.clone()}}), options);
  EXPECT_NE(first, other);
  documents.zero_();
  const auto changed = block_mask(mask, options);
  EXPECT_NE(first, changed);
  EXPECT_EQ(changed->full_keys.blocks.numel(), 16);
  EXPECT_EQ(changed, block_mask(mask, options));

  // Writes to a tensor made for inference are not counted.
  const c10::InferenceMode inference;
  const at::Tensor unversioned = spans(1, 64, 16);
  const Expression unversioned_mask = bind(document(), {{"document", unversioned}});
  const auto before = block_mask(unversioned_mask, options);
  unversioned.zero_();
  EXPECT_EQ(block_mask(unversioned_mask, options)->full_keys.blocks.numel(), 16);
}

TEST(BlockMaskCache, ServesThreads) {
  const BlockMaskOptions options = {.T = 500, .S = 333, .block_size = 16};
  std::vector<std::shared_ptr<const BlockMask>> found(8);
  std::vector<std::thread> threads;
  for (auto& mine : found) {
    threads.emplace_back([&mine, &options] {
      for (int64_t n = 0; n < 20; ++n) block_mask(window(n), options);
      mine = block_mask(causal(), options);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& mask : found) {
    EXPECT_TRUE(mask->kinds.equal(make_block_mask(causal(), options).kinds));
  }
}

TEST(Describe, IsAPicture) {
  EXPECT_EQ(describe(make_block_mask(causal() & window(40), {.T = 90, .S = 90, .block_size = 16})),
            "+.....\n"
            "#+....\n"
            "+#+...\n"
            "++#+..\n"
            ".++#+.\n"
            "..++#+\n"
            "'#' full, '+' cut, '.' empty\n"
            "90 queries x 90 keys in blocks of 16: 5 full, 13 cut, 18 empty; block sparsity 50.0 "
            "%\n");
  const Expression by_head = (query_index() >= key_index()) & (head_index() >= 0);
  const std::string large = describe(make_block_mask(by_head, {.H = 2, .T = 16640, .S = 16640}));
  EXPECT_NE(large.find("a letter is 5 x 3 blocks; the first of 1 batches and 2 heads"),
            std::string::npos)
      << large;
  size_t widest = 0, begin = 0, lines = 0;
  for (size_t end; (end = large.find('\n', begin)) != std::string::npos; begin = end + 1) {
    if (large[begin] != '\'' && large[begin] != '1') widest = std::max(widest, end - begin);
    ++lines;
  }
  EXPECT_LE(widest, 64U);
  EXPECT_LE(lines, 34U);
}

}  // namespace
}  // namespace nanoflex::flex
