#include "trainer/report/record.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <fstream>

#include "trainer/numbers.h"
#include "trainer/run_pictures.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kDash = "\xE2\x80\x93";
constexpr uintmax_t kLargestPicture = 1 << 22;

std::string read_bytes(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

json read_json(const fs::path& file) {
  json value = json::parse(read_bytes(file), nullptr, /*allow_exceptions=*/false);
  return value.is_object() ? value : json();
}

}  // namespace

FullRecord read_full_record(const fs::path& run) {
  FullRecord record{.summary = read_json(run / "summary.json"),
                    .metrics = read_metrics(run / "metrics.jsonl")};
  if (record.summary.contains("profile")) record.profile = read_json(run / "profile.json");
  for (const PictureFile& file : {kMaskPicture, kWindowPicture}) {
    std::error_code none;
    if (fs::file_size(run / file.name, none) > kLargestPicture || none) continue;
    record.masks.push_back({file.title, read_bytes(run / file.name)});
  }
  return record;
}

std::vector<json> read_metrics(const fs::path& file) {
  std::ifstream in(file);
  std::vector<json> metrics;
  for (std::string line; std::getline(in, line);) {
    json parsed = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (parsed.is_object()) metrics.push_back(std::move(parsed));
  }
  return metrics;
}

json field(const json& root, const std::string& path) {
  const json* value = &root;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    if (!value->is_object()) return {};
    const auto found = value->find(path.substr(begin, end - begin));
    if (found == value->end()) return {};
    value = &*found;
    begin = end + 1;
  }
  return *value;
}

std::string text_of(const json& value) {
  if (value.is_null()) return kDash;
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string decimals_of(const json& value, double unit, int decimals) {
  return value.is_number() ? with_decimals(value.get<double>() / unit, decimals) : kDash;
}

std::string command_of(const json& summary) {
  std::string command;
  for (const json& part : field(summary, "command")) {
    std::string word = text_of(part);
    const auto plain = [](unsigned char c) {
      return std::isalnum(c) || std::strchr("_-./=+:,@%", c);
    };
    if (word.empty() || !std::all_of(word.begin(), word.end(), plain)) {
      for (size_t quote = 0; (quote = word.find('\'', quote)) != std::string::npos; quote += 4)
        word.replace(quote, 1, "'\\''");
      word = "'" + word + "'";
    }
    command += (command.empty() ? "" : " ") + word;
  }
  return command;
}

}  // namespace nanoflex
