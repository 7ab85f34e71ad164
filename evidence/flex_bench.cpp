#include "evidence/flex_bench.h"

#include <cmath>

#include "attention/cpu/dispatch.h"
#include "attention/flex/block_mask.h"
#include "attention/flex/parse.h"
#include "attention/flex/scores.h"
#include "evidence/bars.h"
#include "evidence/measure.h"
#include "evidence/passes.h"
#include "evidence/python_peer.h"
#include "evidence/rows.h"
#include "trainer/machine.h"
#include "trainer/markdown.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

struct FlexShape {
  int64_t B, H, T, D;
};

std::string name_of(const FlexShape& s) {
  return c10::str("B", s.B, " H", s.H, " T", s.T, " D", s.D);
}

// The case whose forward pass is timed in PyTorch too.
const std::string kPeers = "B2 H8 T1024 D64 causal";

// The models' shapes of the attention bench, and the guide's B 32, T 1950.
std::vector<FlexShape> shapes_of(const FlexBenchOptions& options) {
  return {{2, 8, 1024, 64},
          {1, 1, 4096, 64},
          {1, 1, 4096, 128},
          {options.quick ? 2 : 8, 4, 256, 32},
          {options.quick ? 2 : 32, 6, 1950, 64}};
}

// A variant, and what its time is held to: at least so many times the speed of the first one's,
// when that is scaled to the variant's share of the blocks that are visited.
struct Contestant {
  Variant variant;
  double wanted = 0;
  double blocks = 1, pairs = 1;  // its share of the first one's visited blocks, and of its pairs
};

struct Contest {
  std::string name;
  FlexShape shape;
  std::vector<Contestant> contestants;
};

// How close to flash a score that changes every pair should come. Beside tile registers the vector
// units' work weighs more.
double score_target(const FlexBenchOptions& options) {
  const bool tiles = options.device.is_cpu() && options.dtype == at::kBFloat16 &&
                     cpu::chosen_kernels().name == std::string("amx");
  return tiles ? 0.6 : 0.8;
}

Contest causal_contest(const FlexShape& s, const FlexBenchOptions& options) {
  const Spec causal = {.mask = flex::causal()};
  Spec softcap = causal, alibi = causal;
  softcap.score = flex::parse_score("softcap(20)");
  alibi.score = flex::bind(flex::parse_score("alibi"),
                           {{"alibi_slopes", flex::alibi_slopes(s.H).to(options.device)}});
  return {name_of(s) + " causal",
          s,
          {{{"flash", "flash", causal}},
           {{"flex", "flex", causal}, 0.95},
           {{"flex softcap(20)", "flex", softcap}, score_target(options)},
           {{"flex alibi", "flex", alibi}, score_target(options)}}};
}

// A mask that hides most of what a causal one leaves: `backend` may take at most so many times the
// mask's share of the causal time.
Contest sparse_contest(const std::string& what, const FlexShape& s, const std::string& backend,
                       const Variant& sparse, double most) {
  const flex::BlockMaskOptions sizes = {.T = s.T, .S = s.T};
  const Spec causal = {.mask = flex::causal()};
  const auto blocks = [&](const Spec& spec) {
    return 1 - flex::make_block_mask(spec.mask, sizes).sparsity();
  };
  const auto pairs = [&](const Spec& spec) { return flex::visible_share(spec.mask, sizes); };
  return {name_of(s) + " " + what,
          s,
          {{{backend + " causal", backend, causal}},
           {sparse, 1 / most, blocks(sparse.spec) / blocks(causal),
            pairs(sparse.spec) / pairs(causal)}}};
}

std::vector<Contest> sparse_contests(const FlexBenchOptions& options) {
  const FlexShape packed = {1, 1, 4096, 64}, lengthy = {1, 1, 8192, 64};
  const Spec document = {
      .mask = flex::bind(flex::parse_mask("causal & document"),
                         {{"document", equal_documents(1, packed.T, 256).to(options.device)}})};
  const Spec window = {.mask = flex::parse_mask("causal & window(256)")};
  return {sparse_contest("documents of 256", packed, "flex",
                         {"flex causal & document", "flex", document}, 1.25),
          sparse_contest("window of 256", lengthy, "flash",
                         {"flash causal & window(256)", "flash", window}, 1.3)};
}

// Of the flex lab: the expressions on whole tensors against the same ones fused.
Contest eager_contest(const FlexBenchOptions& options) {
  const FlexShape s = {options.quick ? 1 : 2, options.quick ? 4 : 8, options.quick ? 512 : 1024,
                       64};
  const at::Tensor document =
      equal_documents(s.B, s.T, options.quick ? 128 : 256).to(options.device);
  const Spec spec = {
      .mask = flex::bind(flex::parse_mask("causal & document"), {{"document", document}}),
      .score = flex::bind(flex::parse_score("alibi"),
                          {{"alibi_slopes", flex::alibi_slopes(s.H).to(options.device)}})};
  return {name_of(s) + " causal & document, alibi",
          s,
          {{{"eager", "vanilla", spec}}, {{"flex", "flex", spec}, 5}}};
}

class FlexBench {
 public:
  explicit FlexBench(const FlexBenchOptions& options) : options_(options) {}

  ordered_json run() {
    const double rate = gemm_tflops(options_.dtype, measure_options());
    std::vector<Contest> contests;
    for (const FlexShape& shape : shapes_of(options_)) {
      contests.push_back(causal_contest(shape, options_));
    }
    for (const Contest& contest : sparse_contests(options_)) contests.push_back(contest);
    contests.push_back(eager_contest(options_));
    if (!options_.python.empty()) {
      show_progress(0, contests.size(), "PyTorch compiles");
      python_.emplace(options_.python, "flex_attention", dtype_name(options_.dtype));
    }
    for (size_t i = 0; i < contests.size(); ++i) {
      show_progress(i + 1, contests.size(), contests[i].name);
      for (const char* pass : {"forward", "backward"}) run_contest(contests[i], pass);
    }
    build_masks();
    ordered_json record = {
        {"machine", describe_environment(options_.device)}, {"gemm_tflops", rate}, {"rows", rows_}};
    if (python_) record["python"] = python_->record();
    return record;
  }

 private:
  MeasureOptions measure_options() const {
    return {.repeat = options_.repeat, .device = options_.device};
  }

  void run_contest(const Contest& contest, const std::string& pass) {
    const FlexShape& s = contest.shape;
    const PassTensors x = random_tensors({s.B, s.H, s.T, s.D}, options_.dtype, options_.device);
    std::vector<Variant> variants;
    for (const Contestant& contestant : contest.contestants) {
      variants.push_back(contestant.variant);
    }
    auto contenders = contenders_of(pass, x, variants);
    contenders.push_back(gemm(options_.dtype, options_.device));
    const bool beside_python = contest.name == kPeers && pass == "forward";
    const auto measured = measure_beside(beside_python ? "forward" : "", contenders, 1);
    const double yardstick = gemm_tflops(measured[variants.size()], options_.device);
    for (size_t i = 0; i < variants.size(); ++i) {
      const Contestant& contestant = contest.contestants[i];
      ordered_json row = measured_row(
          {contest.name, contestant.variant.name, pass, options_.device, options_.dtype},
          measured[i]);
      row["share_of_gemm"] = flops(s, contestant, pass) / measured[i].median_ms / 1e9 / yardstick;
      add_ratio(row, contest.contestants[0].variant.name, measured[i], measured[0]);
      if (contestant.wanted > 0) {
        const Ratio speed = times_faster(measured[i], measured[0]);
        const double value = speed.value * contestant.blocks;
        row["target"] = {{"value", value},
                         {"range", {speed.low * contestant.blocks, speed.high * contestant.blocks}},
                         {"value_by_pairs", speed.value * contestant.pairs},
                         {"wanted", contestant.wanted},
                         {"holds", value >= contestant.wanted},
                         {"of", contest.contestants[0].variant.name}};
      }
      rows_.push_back(row);
    }
  }

  // In turn with PyTorch's call of this name, which stands against contender `own`.
  std::vector<Measured> measure_beside(const std::string& call, std::vector<Contender> contenders,
                                       size_t own) {
    const bool in_turn = python_ && python_->can_run(call);
    if (in_turn) contenders.push_back(python_->contender(call));
    const std::vector<Measured> measured = measure(contenders, measure_options());
    if (in_turn) python_->add(call, measured.back(), measured[own]);
    return measured;
  }

  // Pairs of a causal mask, counted as half of all by convention.
  static double flops(const FlexShape& s, const Contestant& contestant, const std::string& pass) {
    const auto T = static_cast<double>(s.T);
    const double forward =
        4.0 * static_cast<double>(s.B * s.H * s.D) * T * T / 2 * contestant.pairs;
    return pass == "forward" ? forward : 2.5 * forward;
  }

  void build_masks() {
    const flex::Expression document =
        flex::bind(flex::parse_mask("causal & document"),
                   {{"document", equal_documents(1, 4096, 256).to(options_.device)}});
    const std::vector<std::tuple<std::string, flex::Expression, int64_t>> masks = {
        {"T4096 causal", flex::causal(), 4096},
        {"T8192 causal", flex::causal(), 8192},
        {"T4096 causal & document", document, 4096}};
    for (const auto& [name, mask, T] : masks) {
      const flex::BlockMaskOptions sizes = {.T = T, .S = T};
      const auto measured =
          measure_beside(T == 8192 ? "block_mask" : "",
                         {{"flex", [&, mask = mask] { flex::make_block_mask(mask, sizes); }}}, 0);
      rows_.push_back(
          measured_row({name, "flex", "build", options_.device, options_.dtype}, measured[0]));
    }
  }

  FlexBenchOptions options_;
  std::optional<PythonPeer> python_;
  ordered_json rows_ = ordered_json::array();
};

}  // namespace

ordered_json bench_flex(const FlexBenchOptions& options) { return FlexBench(options).run(); }

std::string flex_markdown(const ordered_json& bench) {
  Table table = {{"case", "backend", "pass", "target", "ms", "spread", "of GEMM", "peak MB",
                  "measured", "wanted"}};
  for (const ordered_json& row : bench.at("rows")) {
    const ordered_json& share = row.at("share_of_gemm");
    std::vector<std::string> line = {row.at("case").get<std::string>(),
                                     row.at("backend").get<std::string>(),
                                     row.at("pass").get<std::string>(),
                                     "",
                                     fixed(row.at("median_ms").get<double>(), 3),
                                     spread_text(row),
                                     share.is_null() ? "-" : fixed(share.get<double>(), 2),
                                     megabytes(row),
                                     "",
                                     ""};
    if (row.contains("target")) {
      const ordered_json& target = row.at("target");
      const double wanted = target.at("wanted").get<double>();
      const Ratio measured = {target.at("value").get<double>(),
                              target.at("range").at(0).get<double>(),
                              target.at("range").at(1).get<double>()};
      const double by_pairs = target.at("value_by_pairs").get<double>();
      line[3] = "of " + target.at("of").get<std::string>();
      if (by_pairs != measured.value) {
        line[3] += ", for its share of visited blocks (of pairs: " + fixed(by_pairs, 2) + "x)";
      }
      line[8] = ratio_text(measured, wanted);
      line[9] = fixed(wanted, 2) + "x";
    }
    table.push_back(line);
  }
  return markdown_table(table, 4) +
         (bench.contains("python")
              ? python_markdown(bench.at("python"), "flex",
                                {{"forward", "flex_attention, compiled: " + kPeers},
                                 {"block_mask", "create_block_mask: T8192 causal"}})
              : "");
}

std::string flex_chart(const ordered_json& bench) {
  GroupedBars bars;
  for (const ordered_json& row : bench.at("rows")) {
    if (!row.contains("target") || row.at("target").at("of") != "flash") continue;
    bars.add(row.at("case"),
             row.at("backend").get<std::string>() + ", " + row.at("pass").get<std::string>(),
             row.at("target").at("value").get<double>());
  }
  return bar_chart("What programs cost beside flash", "shape", "speed over flash's, times",
                   bars.groups, bars.series);
}

}  // namespace nanoflex
