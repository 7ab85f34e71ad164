#include "trainer/report/record.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <exception>
#include <fstream>

#include "trainer/record_file.h"
#include "trainer/run_pictures.h"
#include "trainer/text.h"

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

json read_json(const fs::path& file) try {
  json value = parse_record(file);
  return value.is_object() ? value : json();
} catch (const std::exception&) {  // there is none, or it is no record
  return {};
}

MetricsLine numbers_of(const json& line) {
  const auto number = [&](const char* name) {
    const auto found = line.find(name);
    return found != line.end() && found->is_number() ? found->get<double>() : NAN;
  };
  return {.step = number("step"),
          .tokens = number("tokens"),
          .step_seconds = number("step_seconds"),
          .loss = number("loss"),
          .validation_loss = number("validation_loss"),
          .learning_rate = number("learning_rate"),
          .grad_norm = number("grad_norm"),
          .tokens_per_second = number("tokens_per_second"),
          .tflops_per_second = number("tflops_per_second"),
          .memory_bytes = number("memory_bytes")};
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

std::vector<MetricsLine> read_metrics(const fs::path& file) {
  std::ifstream in(file);
  std::vector<MetricsLine> metrics;
  for (std::string line; std::getline(in, line);) {
    const json parsed = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (parsed.is_object()) metrics.push_back(numbers_of(parsed));
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
