#include "evidence/attention_sweep.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "evidence/measure.h"
#include "evidence/passes.h"
#include "evidence/rows.h"
#include "trainer/machine.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

const std::vector<std::string> kSweepBackends = {"vanilla", "sdpa", "flash"};

struct SweepShape {
  int64_t B, H, T, D;
  int64_t window = 0;  // keys back; 0: all
  std::vector<std::string> backends = kSweepBackends;
};

std::string name_of(const SweepShape& s) {
  std::string name = c10::str("B", s.B, " H", s.H, " T", s.T, " D", s.D, " causal");
  return s.window > 0 ? c10::str(name, " window(", s.window, ")") : name;
}

std::vector<SweepShape> shapes_of(const SweepOptions& options) {
  std::vector<SweepShape> shapes = {{2, 8, 1024, 64},
                                    {1, 1, 4096, 64},
                                    {1, 1, 4096, 128},
                                    {8, 4, 256, 32},
                                    {1, 1, 8192, 64, 256, {"flash"}}};
  if (options.longest < 8192)
    shapes.push_back({1, 1, 8192, 64, 0, {"flash"}});  // beside the window
  for (int64_t D = 16; D <= 128; D *= 2) {
    for (int64_t T = 128; T <= options.longest; T *= 2) {
      const auto same = [&](const SweepShape& s) {
        return s.B == 1 && s.H == 1 && s.T == T && s.D == D && s.window == 0;
      };
      if (std::none_of(shapes.begin(), shapes.end(), same)) shapes.push_back({1, 1, T, D});
    }
  }
  return shapes;
}

flex::Expression mask_of(const SweepShape& s) {
  return s.window > 0 ? flex::causal() & flex::window(s.window) : flex::causal();
}

// Pairs that a causal mask leaves, counted as half of all by convention.
double forward_flops(const SweepShape& s) {
  const auto T = static_cast<double>(s.T);
  const double pairs = s.window > 0 ? T * static_cast<double>(s.window + 1) : T * T / 2;
  return 4.0 * static_cast<double>(s.B * s.H * s.D) * pairs;
}

double flops(const SweepShape& s, const std::string& pass) {
  const double forward = forward_flops(s);
  return pass == "forward" ? forward : pass == "backward" ? 2.5 * forward : 3.5 * forward;
}

std::vector<Variant> variants_of(const SweepShape& s) {
  std::vector<Variant> variants;
  for (const std::string& backend : s.backends) {
    variants.push_back({backend, backend, {.mask = mask_of(s)}});
  }
  return variants;
}

class Sweep {
 public:
  explicit Sweep(const SweepOptions& options) : options_(options) {}

  ordered_json run() {
    const std::vector<SweepShape> shapes = shapes_of(options_);
    const size_t count = shapes.size() * options_.dtypes.size();
    size_t done = 0;
    for (const at::ScalarType dtype : options_.dtypes) {
      ms_per_flop_.clear();
      rates_[dtype_name(dtype)] = gemm_tflops(dtype, measure_options());
      for (const SweepShape& shape : shapes) {
        show_progress(++done, count, dtype_name(dtype) + " " + name_of(shape));
        run_case(shape, dtype);
      }
    }
    ordered_json result = {{"machine", describe_environment(options_.device)}};
    result["gemm_tflops"] = rates_.contains("bfloat16") ? rates_["bfloat16"] : rates_["float32"];
    result["gemm_tflops_by_dtype"] = rates_;
    result["rows"] = rows_;
    return result;
  }

 private:
  MeasureOptions measure_options() const {
    return {.repeat = options_.repeat, .device = options_.device};
  }

  void run_case(const SweepShape& shape, at::ScalarType dtype) {
    const PassTensors x =
        random_tensors({shape.B, shape.H, shape.T, shape.D}, dtype, options_.device);
    std::vector<Variant> able;
    const auto skip = [&](const Variant& variant, const std::string& reason) {
      rows_.push_back(skipped_row(row_name(shape, dtype, variant.backend, ""), reason));
      add_sizes(rows_.back(), shape);
    };
    for (const Variant& variant : variants_of(shape)) {
      std::string reason = why_skipped(variant, x);
      if (reason.empty()) reason = why_too_slow(variant.backend, shape, dtype);
      reason.empty() ? able.push_back(variant) : skip(variant, reason);
    }
    for (const char* pass : {"forward", "backward", "step"}) {
      const auto [measured, yardstick] = measure_pass(pass, x, able, measure_options(), skip);
      for (size_t i = 0; i < able.size(); ++i) {
        ordered_json row = measured_row(row_name(shape, dtype, able[i].backend, pass), measured[i]);
        add_sizes(row, shape);
        row["share_of_gemm"] =
            flops(shape, pass) / measured[i].median_ms / 1e9 / gemm_tflops(yardstick, x.q.device());
        add_ratios(row, measured, i);
        rows_.push_back(row);
        ms_per_flop_[able[i].backend] = measured[i].median_ms / flops(shape, pass);
      }
    }
  }

  // From what the backend's last case took: where LibTorch emulates bf16, some would take minutes.
  std::string why_too_slow(const std::string& backend, const SweepShape& shape,
                           at::ScalarType dtype) {
    const double seconds = ms_per_flop_[backend] * flops(shape, "step") / 1e3;
    const double patience = options_.quick ? 5 : 60;
    if (seconds <= patience) return "";
    return c10::str("would take about ", std::llround(seconds), " s a step in ", dtype_name(dtype));
  }

  RowName row_name(const SweepShape& s, at::ScalarType dtype, const std::string& backend,
                   const std::string& pass) const {
    return {name_of(s), backend, pass, options_.device, dtype};
  }

  static void add_sizes(ordered_json& row, const SweepShape& s) {
    row["B"] = s.B, row["H"] = s.H, row["T"] = s.T, row["D"] = s.D;
  }

  SweepOptions options_;
  std::map<std::string, double> ms_per_flop_;  // of each backend's last case
  ordered_json rates_ = ordered_json::object();
  ordered_json rows_ = ordered_json::array();
};

}  // namespace

ordered_json sweep_attention(const SweepOptions& options) { return Sweep(options).run(); }

}  // namespace nanoflex
