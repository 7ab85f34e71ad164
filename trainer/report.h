#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace nanoflex {

/// Indented JSON; bytes that are no UTF-8 (of a path, say) become U+FFFD.
std::string dumped(const nlohmann::ordered_json& value);

/// A run on one page of Markdown.
std::string markdown_report(const nlohmann::json& summary);

/// A run on one self-contained HTML page with the loss and throughput curves; all texts escaped.
std::string html_report(const nlohmann::json& summary, const std::vector<nlohmann::json>& metrics);

/// The lines of a metrics.jsonl that are whole; none when there is no such file.
std::vector<nlohmann::json> read_metrics(const std::filesystem::path& file);

}  // namespace nanoflex
