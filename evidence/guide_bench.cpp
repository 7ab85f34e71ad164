#include "evidence/guide_bench.h"

#include "attention/flex/block_mask.h"
#include "attention/flex/parse.h"
#include "evidence/bars.h"
#include "evidence/passes.h"
#include "evidence/published.h"
#include "evidence/rows.h"
#include "trainer/machine.h"
#include "trainer/markdown.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

const std::vector<std::string> kGuideBackends = {"vanilla", "flash", "flex"};

struct GuideMask {
  std::string name;
  flex::Expression mask;
};

std::vector<GuideMask> masks_of(const GuideOptions& options) {
  const std::string window = c10::str("window(", options.window, ")");
  const at::Tensor documents =
      equal_documents(options.batch, options.length, options.document).to(options.device);
  return {
      {"causal", flex::causal()},
      {"full", flex::full()},
      {"sliding window", flex::parse_mask("causal & " + window)},
      {"block-sparse",
       flex::parse_mask(c10::str("causal & block_sparse(", options.block, ", 1, 4)"))},
      {"document", flex::bind(flex::parse_mask("causal & document"), {{"document", documents}})},
      // Near keys, the first few, and every sixteenth.
      {"custom", flex::parse_mask("causal & (" + window + " | kv < 4 | dilated(16))")}};
}

class Guide {
 public:
  explicit Guide(const GuideOptions& options)
      : options_(options),
        x_(random_tensors(
            {options.batch, options.heads, options.length, options.width / options.heads},
            options.dtype, options.device)),
        gemm_(gemm_tflops(options.dtype, measure_options())) {}

  ordered_json run() {
    const std::vector<GuideMask> masks = masks_of(options_);
    for (size_t i = 0; i < masks.size(); ++i) {
      show_progress(i + 1, masks.size(), masks[i].name);
      run_mask(masks[i]);
    }
    return {{"machine", describe_environment(options_.device)},
            {"gemm_tflops", gemm_},
            {"batch", options_.batch},
            {"length", options_.length},
            {"heads", options_.heads},
            {"width", options_.width},
            {"rows", rows_},
            {"published", published_json("guide")}};
  }

 private:
  MeasureOptions measure_options() const {
    return {.repeat = options_.repeat, .device = options_.device};
  }

  RowName name(const GuideMask& mask, const std::string& backend) const {
    return {mask.name, backend, "step", options_.device, options_.dtype};
  }

  void run_mask(const GuideMask& mask) {
    std::vector<Variant> able;
    const auto skip = [&](const Variant& variant, const std::string& reason) {
      rows_.push_back(skipped_row(name(mask, variant.backend), reason));
    };
    for (const std::string& backend : kGuideBackends) {
      const Variant variant = {backend, backend, {.mask = mask.mask}};
      const std::string reason = why_skipped(variant, x_);
      reason.empty() ? able.push_back(variant) : skip(variant, reason);
    }
    const auto [measured, yardstick] = measure_pass("step", x_, able, measure_options(), skip);
    const double share =
        flex::visible_share(mask.mask, {.T = options_.length, .S = options_.length});
    for (size_t i = 0; i < able.size(); ++i) {
      ordered_json row = measured_row(name(mask, able[i].name), measured[i]);
      row["share_of_gemm"] =
          flops(share) / measured[i].median_ms / 1e9 / gemm_tflops(yardstick, options_.device);
      add_ratios(row, measured, i);
      row["mask"] = flex::to_text(mask.mask);
      row["visible_share"] = share;
      rows_.push_back(row);
    }
  }

  // Two products forward and five backward, over the pairs that the mask leaves.
  double flops(double share) const {
    const auto pairs = static_cast<double>(options_.length * options_.length);
    return 14.0 * static_cast<double>(options_.batch * options_.width) * pairs * share;
  }

  const GuideOptions options_;
  const PassTensors x_;
  const double gemm_;
  ordered_json rows_ = ordered_json::array();
};

}  // namespace

GuideOptions guide_options(bool quick) {
  if (!quick) return {};
  return {.batch = 2, .length = 510, .window = 64, .block = 32, .document = 64};
}

ordered_json bench_guide(const GuideOptions& options) { return Guide(options).run(); }

std::string guide_markdown(const ordered_json& bench) {
  Table table = {{"mask", "backend", "dtype", "pairs", "ms", "spread", "of GEMM", "over vanilla",
                  "over flash", "peak MB"}};
  for (const ordered_json& row : bench.at("rows")) {
    if (row.contains("skipped")) continue;
    table.push_back({row.at("case").get<std::string>(), row.at("backend").get<std::string>(),
                     row.at("dtype").get<std::string>(),
                     fixed(100 * row.at("visible_share").get<double>(), 1) + " %",
                     fixed(row.at("median_ms").get<double>(), 2), spread_text(row),
                     fixed(row.at("share_of_gemm").get<double>(), 2), ratio_text(row, "vanilla"),
                     ratio_text(row, "flash"), megabytes(row)});
  }
  return "Forward and backward, batch " + bench.at("batch").dump() + ", T " +
         bench.at("length").dump() + ", width " + bench.at("width").dump() + ", " +
         bench.at("heads").dump() + " heads.\n\n" + markdown_table(table, 3) +
         skipped_markdown(bench.at("rows")) + published_markdown("guide");
}

std::string guide_chart(const ordered_json& bench) {
  GroupedBars bars;
  for (const ordered_json& row : bench.at("rows")) {
    std::optional<double> time;
    if (row.contains("median_ms")) time = row.at("median_ms").get<double>();
    bars.add(row.at("case"), row.at("backend"), time);
  }
  return bar_chart("Attention under six masks, forward and backward", "mask", "time, ms",
                   bars.groups, bars.series);
}

}  // namespace nanoflex
