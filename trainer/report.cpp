#include "trainer/report.h"

#include "trainer/markdown.h"

namespace nanoflex {
namespace {

using nlohmann::json;

// The numbers that a reader looks for first: {name, value}.
std::vector<std::pair<std::string, std::string>> headline_rows(const json& s) {
  return {{"status", text_of(field(s, "status"))},
          {"tokens/s", decimals_of(field(s, "results.tokens_per_second"), 1, 0)},
          {"TFLOP/s", decimals_of(field(s, "results.tflops_per_second"), 1, 3)},
          {"peak tensor memory, MB", decimals_of(field(s, "results.peak_memory_bytes"), 1e6, 0)},
          {"peak resident set, MB", decimals_of(field(s, "results.peak_rss_bytes"), 1e6, 0)},
          {"first loss, nats", decimals_of(field(s, "results.first_loss"), 1, 4)},
          {"final loss, nats", decimals_of(field(s, "results.final_loss"), 1, 4)},
          {"validation loss, nats", decimals_of(field(s, "results.validation_loss"), 1, 4)},
          {"bits per byte", decimals_of(field(s, "results.bits_per_byte"), 1, 4)},
          {"steps", text_of(field(s, "budget.steps"))},
          {"steps timed", text_of(field(s, "budget.measured_steps"))},
          {"FLOPs per token", text_of(field(s, "budget.flops_per_token"))},
          {"tokens per step", text_of(field(s, "budget.tokens_per_step"))},
          {"attention", text_of(field(s, "attention.backend"))},
          {"mask", text_of(field(s, "attention.mask"))},
          {"fused", text_of(field(s, "attention.fused"))},
          {"device", text_of(field(s, "environment.device"))},
          {"CPU", text_of(field(s, "environment.cpu"))},
          {"commit", text_of(field(s, "git.commit"))}};
}

}  // namespace

std::string dumped(const nlohmann::ordered_json& value) {
  return value.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string markdown_report(const json& summary) {
  Table table = {{"", ""}};
  for (const auto& [name, value] : headline_rows(summary)) {
    table.push_back({name, markdown_text(value)});
  }
  return "# Run " + text_of(field(summary, "run_id")) + "\n\n```\n" + command_of(summary) +
         "\n```\n\n" + markdown_table(table, 2);
}

}  // namespace nanoflex
