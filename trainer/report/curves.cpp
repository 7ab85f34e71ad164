#include "trainer/report/curves.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

namespace nanoflex {
namespace {

using nlohmann::json;

struct Column {
  const char* name;
  double MetricsLine::*value;
};

constexpr Column kOfSteps[] = {{"loss", &MetricsLine::loss},
                               {"tokens_per_second", &MetricsLine::tokens_per_second},
                               {"tflops_per_second", &MetricsLine::tflops_per_second},
                               {"memory_bytes", &MetricsLine::memory_bytes},
                               {"learning_rate", &MetricsLine::learning_rate},
                               {"grad_norm", &MetricsLine::grad_norm}};
constexpr Column kOfValidations[] = {{"validation_loss", &MetricsLine::validation_loss}};

json point_or_null(double value) { return std::isfinite(value) ? json(value) : json(); }

// One metric over the steps of a bucket.
struct Spread {
  double sum = 0;
  double low = std::numeric_limits<double>::infinity(), high = -low;
  int64_t count = 0;

  void add(double value) {
    sum += value;
    low = std::min(low, value);
    high = std::max(high, value);
    ++count;
  }
};

// Where along a run a line of its metrics stands.
struct Place {
  const MetricsLine* line;
  double seconds;  // of training, up to its end
};

json curve(const std::vector<Place>& places, std::span<const Column> columns) {
  const size_t bucket = places.empty() ? 1 : (places.size() - 1) / kMostPoints + 1;
  json result = {{"bucket", bucket},        {"from", json::array()},    {"step", json::array()},
                 {"tokens", json::array()}, {"seconds", json::array()}, {"columns", json::object()},
                 {"low", json::object()},   {"high", json::object()}};
  for (size_t begin = 0; begin < places.size(); begin += bucket) {
    const size_t end = std::min(begin + bucket, places.size());
    result["from"].push_back(point_or_null(places[begin].line->step));
    result["step"].push_back(point_or_null(places[end - 1].line->step));
    result["tokens"].push_back(point_or_null(places[end - 1].line->tokens));
    result["seconds"].push_back(places[end - 1].seconds);
    for (const auto& [name, value] : columns) {
      Spread spread;
      for (size_t i = begin; i < end; ++i) {
        if (const double here = places[i].line->*value; std::isfinite(here)) spread.add(here);
      }
      const auto count = static_cast<double>(spread.count);
      const bool any = spread.count > 0;
      result["columns"][name].push_back(any ? json(spread.sum / count) : json());
      if (bucket == 1) continue;
      result["low"][name].push_back(any ? json(spread.low) : json());
      result["high"][name].push_back(any ? json(spread.high) : json());
    }
  }
  return result;
}

}  // namespace

json curves_of(const std::string& label, const std::vector<MetricsLine>& metrics) {
  std::vector<Place> steps, validations;
  double seconds = 0;
  for (const MetricsLine& line : metrics) {
    if (std::isfinite(line.step_seconds)) seconds += line.step_seconds;
    steps.push_back({&line, seconds});
    if (std::isfinite(line.validation_loss)) validations.push_back(steps.back());
  }
  return {{"label", label},
          {"steps", metrics.size()},
          {"curves", {curve(steps, kOfSteps), curve(validations, kOfValidations)}}};
}

}  // namespace nanoflex
