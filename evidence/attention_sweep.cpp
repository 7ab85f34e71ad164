#include "evidence/attention_sweep.h"

#include <cmath>
#include <map>
#include <sstream>

#include "attention/attention.h"
#include "attention/registry.h"
#include "evidence/chart.h"
#include "evidence/measure.h"
#include "evidence/passes.h"
#include "trainer/machine.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

const std::vector<std::string> kBackends = {"vanilla", "sdpa", "flash"};

struct Shape {
  int64_t B, H, T, D;
  int64_t window = 0;  // keys back; 0: all
  std::vector<std::string> backends = kBackends;
};

std::string name_of(const Shape& s) {
  std::string name = c10::str("B", s.B, " H", s.H, " T", s.T, " D", s.D, " causal");
  return s.window > 0 ? c10::str(name, " window(", s.window, ")") : name;
}

std::vector<Shape> shapes_of(const SweepOptions& options) {
  std::vector<Shape> shapes = {{2, 8, 1024, 64},
                               {1, 1, 4096, 64},
                               {1, 1, 4096, 128},
                               {8, 4, 256, 32},
                               {1, 1, 8192, 64, 0, {"flash"}},
                               {1, 1, 8192, 64, 256, {"flash"}}};
  for (int64_t D = 16; D <= 128; D *= 2) {
    for (int64_t T = 128; T <= (options.quick ? 4096 : 65536); T *= 2) {
      const auto same = [&](const Shape& s) {
        return s.B == 1 && s.H == 1 && s.T == T && s.D == D && s.backends.size() > 1;
      };
      if (std::none_of(shapes.begin(), shapes.end(), same)) shapes.push_back({1, 1, T, D});
    }
  }
  return shapes;
}

flex::Expression mask_of(const Shape& s) {
  return s.window > 0 ? flex::causal() & flex::window(s.window) : flex::causal();
}

// Pairs that a causal mask leaves, counted as half of all by convention.
double forward_flops(const Shape& s) {
  const auto T = static_cast<double>(s.T);
  const double pairs = s.window > 0 ? T * static_cast<double>(s.window + 1) : T * T / 2;
  return 4.0 * static_cast<double>(s.B * s.H * s.D) * pairs;
}

double flops(const Shape& s, const std::string& pass) {
  const double forward = forward_flops(s);
  return pass == "forward" ? forward : pass == "backward" ? 2.5 * forward : 3.5 * forward;
}

std::vector<Variant> variants_of(const Shape& s, const std::vector<std::string>& backends) {
  std::vector<Variant> variants;
  for (const std::string& backend : backends) {
    variants.push_back({backend, backend, {.mask = mask_of(s)}});
  }
  return variants;
}

// "" when the backend can run the case here, else why not.
std::string why_skipped(const std::string& backend, const Shape& s, const PassTensors& x) {
  if (backend == "vanilla") {
    // Scores, weights, their gradients and copies: about eight T x T tensors in fp32.
    const double needed =
        32.0 * static_cast<double>(s.B * s.H) * static_cast<double>(s.T) * static_cast<double>(s.T);
    const auto free = static_cast<double>(free_memory_bytes(x.q.device()));
    if (needed > free) {
      return c10::str("does not fit: needs about ", std::llround(needed / 1e9), " GB, ",
                      std::llround(free / 1e9), " GB are free");
    }
  }
  for (const Backend& candidate : backends()) {
    if (candidate.name != backend) continue;
    return candidate.why_unsupported(x.q, x.k, x.v, {.mask = mask_of(s)});
  }
  return "no such backend";
}

class Sweep {
 public:
  explicit Sweep(const SweepOptions& options) : options_(options) {}

  ordered_json run() {
    const std::vector<Shape> shapes = shapes_of(options_);
    const size_t count = shapes.size() * options_.dtypes.size();
    size_t done = 0;
    for (const at::ScalarType dtype : options_.dtypes) {
      ms_per_flop_.clear();
      gemm_ms_ = measure({gemm(dtype, options_.device)}, measure_options())[0].median_ms;
      rates_[dtype_name(dtype)] = kGemmFlops / gemm_ms_ / 1e9;
      for (const Shape& shape : shapes) {
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

  void run_case(const Shape& shape, at::ScalarType dtype) {
    const PassTensors x =
        random_tensors({shape.B, shape.H, shape.T, shape.D}, dtype, options_.device);
    std::vector<std::string> able;
    for (const std::string& backend : shape.backends) {
      std::string reason = why_skipped(backend, shape, x);
      if (reason.empty()) reason = why_too_slow(backend, shape, dtype);
      if (reason.empty()) {
        able.push_back(backend);
      } else {
        ordered_json row = begin_row(shape, dtype, backend, "");
        row["skipped"] = reason;
        rows_.push_back(row);
      }
    }
    for (const char* pass : {"forward", "backward", "step"}) {
      const auto measured =
          measure(contenders_of(pass, x, variants_of(shape, able)), measure_options());
      for (size_t i = 0; i < able.size(); ++i) {
        ordered_json row = begin_row(shape, dtype, able[i], pass);
        row["median_ms"] = measured[i].median_ms;
        row["spread"] = measured[i].spread;
        row["share_of_gemm"] = flops(shape, pass) / measured[i].median_ms / (kGemmFlops / gemm_ms_);
        row["ratios"] = ordered_json::object();
        for (size_t peer = 0; peer < able.size(); ++peer) {
          if (peer != i)
            row["ratios"][able[peer]] = measured[peer].median_ms / measured[i].median_ms;
        }
        row["peak_bytes"] = measured[i].peak_bytes;
        rows_.push_back(row);
        ms_per_flop_[able[i]] = measured[i].median_ms / flops(shape, pass);
      }
    }
  }

  // From what the backend's last case took: where LibTorch emulates bf16, some would take minutes.
  std::string why_too_slow(const std::string& backend, const Shape& shape, at::ScalarType dtype) {
    const double seconds = ms_per_flop_[backend] * flops(shape, "step") / 1e3;
    const double patience = options_.quick ? 5 : 60;
    if (seconds <= patience) return "";
    return c10::str("would take about ", std::llround(seconds), " s a step in ", dtype_name(dtype));
  }

  ordered_json begin_row(const Shape& s, at::ScalarType dtype, const std::string& backend,
                         const std::string& pass) const {
    return {{"case", name_of(s)},
            {"B", s.B},
            {"H", s.H},
            {"T", s.T},
            {"D", s.D},
            {"backend", backend},
            {"pass", pass},
            {"device", options_.device.str()},
            {"dtype", dtype_name(dtype)}};
  }

  SweepOptions options_;
  double gemm_ms_ = 0;
  std::map<std::string, double> ms_per_flop_;  // of each backend's last case
  ordered_json rates_ = ordered_json::object();
  ordered_json rows_ = ordered_json::array();
};

}  // namespace

ordered_json sweep_attention(const SweepOptions& options) { return Sweep(options).run(); }

std::string sweep_csv(const ordered_json& sweep) {
  std::ostringstream csv;
  csv << "case,B,H,T,D,dtype,backend,pass,median_ms,spread,share_of_gemm,times_faster_than_vanilla,"
         "times_faster_than_sdpa,peak_bytes,skipped\n";
  for (const ordered_json& row : sweep.at("rows")) {
    const std::string skipped = row.value("skipped", "");
    csv << row.at("case").get<std::string>();
    for (const char* key : {"B", "H", "T", "D"}) csv << ',' << row.at(key).get<int64_t>();
    for (const char* key : {"dtype", "backend", "pass"})
      csv << ',' << row.at(key).get<std::string>();
    if (!skipped.empty()) {
      csv << ",,,,,,,\"" << skipped << "\"\n";
      continue;
    }
    for (const char* key : {"median_ms", "spread", "share_of_gemm"}) csv << ',' << row.at(key);
    for (const char* peer : {"vanilla", "sdpa"}) {
      csv << ',';
      if (row.at("ratios").contains(peer)) csv << row.at("ratios").at(peer);
    }
    csv << ',' << row.at("peak_bytes") << ",\n";
  }
  return csv.str();
}

std::string sweep_markdown(const ordered_json& sweep) {
  std::ostringstream page;
  page << "| case | dtype | pass | flash ms | of GEMM | over sdpa | over vanilla | spread |\n"
       << "|---|---|---|---:|---:|---:|---:|---:|\n";
  for (const ordered_json& row : sweep.at("rows")) {
    if (row.contains("skipped") || row.at("backend") != "flash") continue;
    const ordered_json& ratios = row.at("ratios");
    const auto ratio = [&](const char* peer) {
      return ratios.contains(peer) ? fixed(ratios.at(peer).get<double>(), 2) + "x"
                                   : std::string("-");
    };
    page << "| " << row.at("case").get<std::string>() << " | " << row.at("dtype").get<std::string>()
         << " | " << row.at("pass").get<std::string>() << " | "
         << fixed(row.at("median_ms").get<double>(), 3) << " | "
         << fixed(row.at("share_of_gemm").get<double>(), 2) << " | " << ratio("sdpa") << " | "
         << ratio("vanilla") << " | " << fixed(100 * row.at("spread").get<double>(), 0) << " % |\n";
  }
  return page.str();
}

std::string sweep_chart(const ordered_json& sweep, const std::string& dtype) {
  std::vector<Series> series;
  for (const std::string& backend : kBackends) {
    Series line{backend, {}};
    for (const ordered_json& row : sweep.at("rows")) {
      const bool shown = row.at("backend") == backend && row.at("pass") == "step" &&
                         row.at("dtype") == dtype && row.at("B") == 1 && row.at("H") == 1 &&
                         row.at("D") == 64 &&
                         row.at("case").get<std::string>().find("window") == std::string::npos;
      if (shown)
        line.points.emplace_back(row.at("T").get<double>(), row.at("median_ms").get<double>());
    }
    std::sort(line.points.begin(), line.points.end());
    series.push_back(line);
  }
  return log_chart("Causal attention, forward and backward, " + dtype + ", one head of 64",
                   "sequence length, tokens", "time, ms", series);
}

}  // namespace nanoflex
