#include "evidence/mask_bench.h"

#include <algorithm>
#include <cstdio>
#include <random>
#include <stdexcept>

#include "attention/flex/parse.h"
#include "evidence/measure.h"
#include "trainer/machine.h"
#include "trainer/mask_picture.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kLongestPicture = 65536;

[[noreturn]] void reject(const std::string& what) {
  throw std::invalid_argument("[bench] " + what);
}

// [1, length]: the number of the document at each position.
at::Tensor packed_documents(int64_t length, int64_t mean) {
  std::mt19937_64 random(1);
  const at::Tensor documents = at::empty({1, length}, at::kLong);
  auto* number = documents.data_ptr<int64_t>();
  int64_t document = 0, left = 0;
  for (int64_t i = 0; i < length; ++i, --left) {
    if (left == 0) {
      left = mean / 2 + static_cast<int64_t>(random() % (mean + 1));
      left = std::max<int64_t>(left, 1);
      ++document;
    }
    number[i] = document - 1;
  }
  return documents;
}

flex::BlockMaskOptions block_options(const MaskBenchOptions& options) {
  return {.T = options.length, .S = options.length, .block_size = options.block_size};
}

}  // namespace

flex::Expression mask_of(const MaskBenchOptions& options) {
  if (options.length < 1) reject(c10::str("--length must be at least 1, is ", options.length));
  if (options.documents < 0) {
    reject(c10::str("--documents must be at least 0, is ", options.documents));
  }
  const bool packed = options.documents > 0;
  const std::string text = !options.mask.empty() ? options.mask
                           : packed              ? "causal & document"
                                                 : "causal";
  flex::Expression mask = flex::parse_mask(text);
  if (packed) {
    mask = flex::bind(mask, {{"document", packed_documents(options.length, options.documents)}});
  }
  const std::vector<std::string> missing = flex::free_tensors(mask);
  if (!missing.empty()) {
    reject("the mask reads the tensor '" + missing[0] +
           "'; only 'document' can be made, by --documents SPAN");
  }
  return mask;
}

ordered_json bench_mask(const MaskBenchOptions& options) {
  const flex::Expression mask = mask_of(options);
  const flex::BlockMaskOptions shape = block_options(options);
  const flex::BlockMask blocks = flex::make_block_mask(mask, shape);
  const MeasureOptions how = {.repeat = options.repeat};
  const double gemm_ms = measure({gemm(at::kFloat, at::kCPU)}, how)[0].median_ms;
  const Measured measured =
      measure({{"build", [&] { flex::make_block_mask(mask, shape); }}}, how)[0];
  const int64_t full = blocks.full_keys.blocks.numel(), cut = blocks.partial_keys.blocks.numel();
  const std::string text = flex::to_text(mask);
  const ordered_json row = {{"case", c10::str("T", options.length, " ", text)},
                            {"mask", text},
                            {"T", options.length},
                            {"S", options.length},
                            {"block_size", options.block_size},
                            {"backend", "flex"},
                            {"pass", "build"},
                            {"device", "cpu"},
                            {"dtype", "bool"},
                            {"median_ms", measured.median_ms},
                            {"spread", measured.spread},
                            {"share_of_gemm", nullptr},
                            {"ratios", ordered_json::object()},
                            {"peak_bytes", measured.peak_bytes},
                            {"full", full},
                            {"cut", cut},
                            {"empty", blocks.kinds.numel() - full - cut},
                            {"sparsity", blocks.sparsity()},
                            {"visible_share", flex::visible_share(mask, shape)},
                            {"boxes_judged", blocks.boxes_judged}};
  return {{"machine", describe_environment(at::kCPU)},
          {"gemm_tflops", kGemmFlops / gemm_ms / 1e9},
          {"rows", ordered_json::array({row})}};
}

std::string mask_report(const MaskBenchOptions& options, const ordered_json& record) {
  const ordered_json& row = record.at("rows").at(0);
  char line[200];
  std::snprintf(line, sizeof line,
                "%.1f %% of the pairs are visible\nbuilt in %.3f ms (median of %lld, spread %.0f "
                "%%), %lld boxes judged\n",
                100 * row.at("visible_share").get<double>(), row.at("median_ms").get<double>(),
                static_cast<long long>(options.repeat), 100 * row.at("spread").get<double>(),
                row.at("boxes_judged").get<long long>());
  return "```text\n" + row.at("mask").get<std::string>() + "\n" +
         flex::describe(flex::make_block_mask(mask_of(options), block_options(options))) + line +
         "```\n";
}

std::string mask_png(const MaskBenchOptions& options) {
  if (options.length > kLongestPicture) {
    reject(c10::str("--png draws lengths up to ", kLongestPicture, ", is ", options.length));
  }
  const flex::Expression mask = mask_of(options);
  return png(draw_mask(mask, flex::make_block_mask(mask, block_options(options))));
}

}  // namespace nanoflex
