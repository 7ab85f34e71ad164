#include "trainer/report.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

namespace nanoflex {
namespace {

using nlohmann::json;

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::string text_of(const json& value) {
  if (value.is_null()) return "-";
  return value.is_string() ? value.get<std::string>() : dumped(value);
}

json at_path(const json& root, const std::string& section, const std::string& name) {
  return root.value(section, json::object()).value(name, json());
}

std::string scaled(const json& value, double divisor, int digits) {
  if (!value.is_number()) return "-";
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", digits, value.get<double>() / divisor);
  return buffer;
}

// The numbers that a reader looks for first: {name, value}.
std::vector<std::pair<std::string, std::string>> headline_rows(const json& s) {
  return {{"status", text_of(s.value("status", json()))},
          {"tokens/s", scaled(at_path(s, "results", "tokens_per_second"), 1, 0)},
          {"TFLOP/s", scaled(at_path(s, "results", "tflops_per_second"), 1, 3)},
          {"peak tensor memory, MB", scaled(at_path(s, "results", "peak_memory_bytes"), 1e6, 0)},
          {"peak resident set, MB", scaled(at_path(s, "results", "peak_rss_bytes"), 1e6, 0)},
          {"first loss, nats", scaled(at_path(s, "results", "first_loss"), 1, 4)},
          {"final loss, nats", scaled(at_path(s, "results", "final_loss"), 1, 4)},
          {"validation loss, nats", scaled(at_path(s, "results", "validation_loss"), 1, 4)},
          {"bits per byte", scaled(at_path(s, "results", "bits_per_byte"), 1, 4)},
          {"steps", text_of(at_path(s, "budget", "steps"))},
          {"steps timed", text_of(at_path(s, "budget", "measured_steps"))},
          {"FLOPs per token", text_of(at_path(s, "budget", "flops_per_token"))},
          {"tokens per step", text_of(at_path(s, "budget", "tokens_per_step"))},
          {"attention", text_of(at_path(s, "attention", "backend"))},
          {"mask", text_of(at_path(s, "attention", "mask"))},
          {"fused", text_of(at_path(s, "attention", "fused"))},
          {"device", text_of(at_path(s, "environment", "device"))},
          {"CPU", text_of(at_path(s, "environment", "cpu"))},
          {"commit", text_of(at_path(s, "git", "commit"))}};
}

std::string command_text(const json& summary) {
  std::string text;
  for (const json& word : summary.value("command", json::array())) {
    text += (text.empty() ? "" : " ") + text_of(word);
  }
  return text;
}

// One curve over steps as inline SVG with its smallest and largest value as axis labels.
std::string curve(const std::vector<json>& metrics, const std::string& name,
                  const std::string& title) {
  std::vector<std::pair<double, double>> points;
  for (const json& line : metrics) {
    const json step = line.value("step", json()), value = line.value(name, json());
    if (step.is_number() && value.is_number()) points.emplace_back(step, value);
  }
  if (points.empty()) return "";
  const auto by_value = [](const auto& a, const auto& b) { return a.second < b.second; };
  const double low = std::min_element(points.begin(), points.end(), by_value)->second;
  const double high = std::max_element(points.begin(), points.end(), by_value)->second;
  const double first = points.front().first, last = points.back().first;
  constexpr double kLeft = 70, kTop = 10, kWidth = 560, kHeight = 180;
  const auto x = [&](double step) {
    return kLeft + (last > first ? (step - first) / (last - first) : 0.5) * kWidth;
  };
  const auto y = [&](double value) {
    return kTop + (high > low ? (high - value) / (high - low) : 0.5) * kHeight;
  };
  std::ostringstream svg;
  svg << "<figure><figcaption>" << escaped(title) << "</figcaption>"
      << "<svg viewBox=\"0 0 640 220\" role=\"img\"><rect x=\"" << kLeft << "\" y=\"" << kTop
      << "\" width=\"" << kWidth << "\" height=\"" << kHeight << "\"/><polyline points=\"";
  for (const auto& [step, value] : points) svg << x(step) << ',' << y(value) << ' ';
  svg << "\"/><text x=\"62\" y=\"20\" text-anchor=\"end\">" << high
      << "</text><text x=\"62\" y=\"190\" text-anchor=\"end\">" << low << "</text><text x=\"70\" "
      << "y=\"210\">step " << first << "</text><text x=\"630\" y=\"210\" text-anchor=\"end\">step "
      << last << "</text></svg></figure>\n";
  return svg.str();
}

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td { padding: .15rem 1rem .15rem 0; vertical-align: top; }
td:first-child { opacity: .7; } figure { margin: 1.5rem 0; } pre { overflow-x: auto; }
svg { width: 100%; } svg rect { fill: none; stroke: currentColor; opacity: .3; }
svg polyline { fill: none; stroke: #2a7de1; stroke-width: 2; } svg text { fill: currentColor; font-size: 11px; }
)";

}  // namespace

std::string dumped(const nlohmann::ordered_json& value) {
  return value.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string markdown_report(const json& summary) {
  std::ostringstream page;
  page << "# Run " << text_of(summary.value("run_id", json())) << "\n\n```\n"
       << command_text(summary) << "\n```\n\n| | |\n|---|---|\n";
  for (const auto& [name, value] : headline_rows(summary)) {
    std::string cell = value;
    for (size_t bar = 0; (bar = cell.find('|', bar)) != std::string::npos; bar += 2) {
      cell.insert(bar, "\\");
    }
    page << "| " << name << " | " << cell << " |\n";
  }
  return page.str();
}

std::string html_report(const json& summary, const std::vector<json>& metrics) {
  const std::string id = escaped(text_of(summary.value("run_id", json())));
  std::ostringstream page;
  page << "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
       << "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Run "
       << id << "</title><style>" << kStyle << "</style></head><body>\n<h1>Run " << id
       << "</h1>\n<pre>" << escaped(command_text(summary)) << "</pre>\n<table>\n";
  for (const auto& [name, value] : headline_rows(summary)) {
    page << "<tr><td>" << escaped(name) << "</td><td>" << escaped(value) << "</td></tr>\n";
  }
  page << "</table>\n"
       << curve(metrics, "loss", "Training loss, nats per token")
       << curve(metrics, "validation_loss", "Validation loss, nats per token")
       << curve(metrics, "tokens_per_second", "Tokens per second")
       << curve(metrics, "learning_rate", "Learning rate") << "<h2>Config</h2>\n<pre>"
       << escaped(dumped(summary.value("config", json::object())))
       << "</pre>\n<h2>Environment</h2>\n<pre>"
       << escaped(dumped(summary.value("environment", json::object())))
       << "</pre>\n</body></html>\n";
  return page.str();
}

std::vector<json> read_metrics(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::vector<json> metrics;
  for (std::string line; std::getline(in, line);) {
    json parsed = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (parsed.is_object()) metrics.push_back(std::move(parsed));
  }
  return metrics;
}

}  // namespace nanoflex
