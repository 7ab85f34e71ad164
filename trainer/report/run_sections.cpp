#include "trainer/report/run_sections.h"

#include <array>
#include <cstdio>

#include "trainer/mask_picture.h"
#include "trainer/report/html.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::json;
using Rows = std::vector<std::vector<std::string>>;

std::string percent(const json& share) {
  return share.is_number() ? with_decimals(100 * share.get<double>(), 1) + " %" : text_of(share);
}

// A table of an object's members, values in one line each.
std::string members(const json& object) {
  Rows rows = {{}};
  for (const auto& [key, value] : object.items()) {
    const bool empty = value.is_string() && value.get_ref<const std::string&>().empty();
    rows.push_back({key, empty ? text_of(json()) : text_of(value)});
  }
  return html_table(rows, 2);
}

std::string titled(const std::string& title, const json& object) {
  if (!object.is_object() || object.empty()) return "";
  return "<section><h3>" + html_text(title) + "</h3>\n" + members(object) + "</section>\n";
}

std::string swatch(const Colour& colour) {
  std::array<char, 8> text{};
  std::snprintf(text.data(), text.size(), "#%02x%02x%02x", colour[0], colour[1], colour[2]);
  return "<span class=\"key\" style=\"background:" + std::string(text.data()) + "\"></span>";
}

std::string mask_key() {
  const std::string size = std::to_string(flex::BlockMask{}.block_size);
  return "<p class=\"note\">" + swatch(mask_colours::kFull) + "blocks of " + size + " x " + size +
         " pairs that are seen whole; " + swatch(mask_colours::kEmpty) +
         "blocks that are not seen, and cost a fused backend nothing; blocks that are cut: " +
         swatch(mask_colours::kCutVisible) + "seen and " + swatch(mask_colours::kCutHidden) +
         "hidden pairs. Of a row that the run trained on, for the first head.</p>\n";
}

}  // namespace

std::string attention_section(const FullRecord& record) {
  const json attention = field(record.summary, "attention");
  if (!attention.is_object()) return "";
  std::string pictures;
  for (const auto& [title, png] : record.masks) {
    pictures += "<figure>" + html_picture(png, title) + "<figcaption>" + html_text(title) +
                "</figcaption></figure>\n";
  }
  const json full = field(attention, "flops_per_token"),
             issued = field(attention, "issued_flops_per_token");
  Rows rows = {{},
               {"backend", text_of(field(attention, "backend"))},
               {"fused", text_of(field(attention, "fused"))},
               {"mask", text_of(field(attention, "mask"))},
               {"score", text_of(field(attention, "score"))},
               {"pairs that the mask hides", percent(field(attention, "sparsity"))},
               {"attention FLOPs a token, counted", decimals_of(full, 1, 0)},
               {"attention FLOPs a token, issued", decimals_of(issued, 1, 0)}};
  if (const json windows = field(attention, "windows"); windows.is_array() && !windows.empty())
    rows.push_back({"window of each layer", text_of(windows)});
  if (const json learned = field(attention, "learned_tensors");
      learned.is_object() && !learned.empty())
    rows.push_back({"learned tensors", text_of(learned)});
  const std::string facts =
      "<div>" + html_table(rows, 2) + (pictures.empty() ? "" : mask_key()) + "</div>\n";
  return "<h2>Attention</h2>\n" + (pictures.empty() ? facts
                                                    : "<div class=\"mask\"><div>" + pictures +
                                                          "</div>" + facts + "</div>\n");
}

std::string samples_section(const FullRecord& record) {
  const json samples = field(record.summary, "samples");
  if (!samples.is_object()) return "";
  std::string html = "<h2>Text that it writes</h2>\n";
  const json texts = field(samples, "texts"), why_none = field(samples, "none_because");
  if (why_none.is_string())
    html += "<p class=\"note\">None: " + html_text(text_of(why_none)) + ".</p>\n";
  if (!texts.is_array() || texts.empty()) return html;
  html += "<p class=\"note\">" + html_text(text_of(field(samples, "tokens"))) +
          " tokens from the beginning of a document, drawn at temperature " +
          html_text(text_of(field(samples, "temperature"))) + " from the " +
          html_text(text_of(field(samples, "top_k"))) + " likeliest; ./sample writes more.</p>\n";
  for (const json& text : texts)
    html += "<pre class=\"sample\">" + html_text(text_of(field(text, "text"))) + "</pre>\n";
  return html;
}

std::string settings_section(const FullRecord& record) {
  const json& s = record.summary;
  std::string html = "<h2>Config</h2>\n<div class=\"sections\">\n";
  const json config = field(s, "config");
  for (const auto& [name, keys] : config.items()) html += titled(name, keys);
  html += "</div>\n<h2>Environment and budget</h2>\n<div class=\"sections\">\n";
  return html + titled("environment", field(s, "environment")) + titled("git", field(s, "git")) +
         titled("budget", field(s, "budget")) + "</div>\n";
}

}  // namespace nanoflex
