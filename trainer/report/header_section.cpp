#include "trainer/progress.h"
#include "trainer/report/html.h"
#include "trainer/report/run_sections.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::json;

std::string paragraph(const std::string& text, const std::string& kind = "") {
  return "<p" + (kind.empty() ? "" : " class=\"" + kind + "\"") + ">" + html_text(text) + "</p>\n";
}

// "13.7 M", for a count.
std::string short_of(const json& value) {
  return value.is_number() ? short_number(value.get<double>()) : text_of(value);
}

std::string status_class(const std::string& status) {
  for (const char* known : {"finished", "failed", "interrupted", "running"}) {
    if (status == known) return known;
  }
  return "";
}

// What was trained, on what and how, in one sentence; clauses that the record lacks are left out.
std::string what_it_is(const json& s) {
  std::string text = "A GPT";
  const json layers = field(s, "config.model.n_layer"), width = field(s, "config.model.n_embd");
  if (layers.is_number() && width.is_number())
    text += " of " + text_of(layers) + " layers and width " + text_of(width);
  if (const json count = field(s, "parameters"); count.is_number())
    text += " (" + short_of(count) + " parameters)";
  const json data = field(s, "config.data.data");
  text += ", trained on " + (data == "" || data.is_null() ? "the default text" : text_of(data));
  if (const json backend = field(s, "attention.backend"); backend.is_string())
    text +=
        " with " + text_of(backend) + " attention (" + text_of(field(s, "attention.mask")) + ")";
  if (const json dtype = field(s, "config.machine.dtype"); dtype.is_string())
    text += ", in " + text_of(dtype);
  if (const json device = field(s, "environment.device"); device.is_string())
    text += " on " + text_of(device);
  if (const json cpu = field(s, "environment.cpu"); cpu.is_string())
    text += " (" + text_of(cpu) + ")";
  return text + ".";
}

std::string how_it_ended(const json& s, const std::string& status) {
  const std::string id = text_of(field(s, "run_id"));
  if (status == "finished") return "";
  if (status == "running")
    return paragraph("This page was written before the run had ended.", "warning");
  if (status == "interrupted")
    return paragraph("The run was interrupted after step " + text_of(field(s, "budget.steps")) +
                         "; ./train --resume " + id + " goes on from there.",
                     "warning");
  const json error = field(s, "error");
  return paragraph("The run did not finish" +
                       (error.is_string() ? ": " + error.get<std::string>() : std::string(".")),
                   "failure");
}

struct Card {
  std::string label, value, unit, note;
};

std::string card(const Card& c) {
  return "<div class=\"card\"><div>" + html_text(c.label) + "</div><b>" + html_text(c.value) +
         (c.unit.empty() ? "" : " <small>" + html_text(c.unit) + "</small>") + "</b><div>" +
         html_text(c.note) + "</div></div>\n";
}

std::string timing_note(const json& s) {
  const json timed = field(s, "budget.measured_steps");
  if (!timed.is_number()) return "";
  if (timed == 0) return "no step was timed: all were warm-up";
  return "mean of " + decimals_of(timed, 1, 0) + (timed == 1 ? " step" : " steps") + ", after " +
         text_of(field(s, "budget.warmup_steps")) + " of warm-up";
}

std::string budget_note(const json& s) {
  const json tokens = field(s, "budget.tokens"), flops = field(s, "budget.flops");
  if (!tokens.is_number() || !flops.is_number()) return "";  // while it runs
  return with_decimals(tokens.get<double>(), 0) + " tokens, " +
         with_digits(flops.get<double>(), 3) + " FLOPs";
}

}  // namespace

std::string header_section(const FullRecord& record) {
  const json& s = record.summary;
  const std::string status = text_of(field(s, "status"));
  std::string html = "<header><p class=\"kicker\">Nanoflex: a training run</p>\n<h1>" +
                     html_text(text_of(field(s, "run_id"))) + " <span class=\"status " +
                     status_class(status) + "\">" + html_text(status) + "</span></h1>\n";
  html += paragraph(what_it_is(s)) + how_it_ended(s, status);
  if (const json parent = field(s, "parent"); !parent.is_null())
    html += paragraph("It began at a checkpoint of another run: " + text_of(parent), "note");
  const std::string command = command_of(s);
  if (!command.empty()) html += "<pre tabindex=\"0\">" + html_text(command) + "</pre>\n";
  return html + "</header>\n";
}

std::string cards_section(const FullRecord& record) {
  const json& s = record.summary;
  const auto number = [&](const char* path, double unit, int decimals) {
    return decimals_of(field(s, path), unit, decimals);
  };
  const bool validated = field(s, "results.validation_loss").is_number();
  const json score = field(s, "attention.score");
  std::string html = "<section class=\"cards\" aria-label=\"Results\">\n";
  for (const Card& one : std::vector<Card>{
           {"final loss", number("results.final_loss", 1, 4), "nats",
            "a token of the last step; the first: " + number("results.first_loss", 1, 4)},
           {"validation loss", number("results.validation_loss", 1, 4), validated ? "nats" : "",
            validated ? "a token of text that was held out" : "not measured"},
           {"bits per byte", number("results.bits_per_byte", 1, 4), "",
            field(s, "results.bits_per_byte").is_number() ? "of the held-out text, lower is better"
                                                          : "not measured"},
           {"throughput", number("results.tokens_per_second", 1, 0), "tokens/s", timing_note(s)},
           {"compute", number("results.tflops_per_second", 1, 3), "TFLOP/s",
            short_of(field(s, "budget.flops_per_token")) + "FLOPs a token"},
           {"peak memory", number("results.peak_memory_bytes", 1e6, 0), "MB of tensors",
            number("results.peak_rss_bytes", 1e6, 0) + " MB resident, the process and all"},
           {"trained for", number("budget.steps", 1, 0), "steps", budget_note(s)},
           {"attention", text_of(field(s, "attention.backend")), "",
            text_of(field(s, "attention.mask")) +
                (score.is_null() ? "" : "; score " + text_of(score))}}) {
    html += card(one);
  }
  return html + "</section>\n";
}

}  // namespace nanoflex
