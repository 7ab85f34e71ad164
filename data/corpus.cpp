#include "data/corpus.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include "data/utf8.h"

namespace nanoflex::data {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

std::string unix_lines(std::string text) {
  size_t out = text.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
  if (out == 0 && text.find("\r\n") == std::string::npos) return text;
  size_t in = out;
  out = 0;
  for (; in < text.size(); ++in) {
    if (text[in] == '\r' && in + 1 < text.size() && text[in + 1] == '\n') continue;
    text[out++] = text[in];
  }
  text.resize(out);
  return text;
}

void require_utf8(std::string_view text, const fs::path& file) {
  const size_t bad = first_invalid_utf8(text);
  if (bad == text.size()) return;
  const auto line = 1 + std::count(text.begin(), text.begin() + bad, '\n');
  throw std::invalid_argument("[data] " + file.string() + ":" + std::to_string(line) +
                              ": invalid UTF-8 at byte " + std::to_string(bad) +
                              "; give plain, uncompressed UTF-8 text");
}

std::string document_of_line(std::string_view line, const std::string& place) {
  const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded())
    throw std::invalid_argument(
        "[data] " + place + ": malformed JSON; each line must be an object with a field `text`");
  if (!json.is_object() || !json.contains("text")) {
    throw std::invalid_argument("[data] " + place +
                                ": no field `text`; each line must be an object that has one");
  }
  if (!json["text"].is_string()) {
    throw std::invalid_argument("[data] " + place + ": the field `text` must be a string, is " +
                                json["text"].type_name());
  }
  return json["text"].get<std::string>();
}

std::vector<std::string> documents_of_lines(std::string_view text, const std::string& file) {
  std::vector<std::string> documents;
  int64_t number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    std::string document = document_of_line(line, file + ":" + std::to_string(number));
    if (!document.empty()) documents.push_back(std::move(document));
  }
  return documents;
}

// Each folder once, whatever links lead to it, and by the first of its names in sorted order, so
// that the same folder is the same text on every file system.
void add_files(const fs::path& folder, std::set<fs::path>& entered, std::vector<fs::path>& files) {
  std::error_code error;
  const fs::path canonical = fs::canonical(folder, error);
  if (!error && !entered.insert(canonical).second) return;
  std::vector<fs::path> paths;
  for (auto entry = fs::directory_iterator(folder, error);
       !error && entry != fs::directory_iterator(); entry.increment(error)) {
    if (!is_hidden(entry->path())) paths.push_back(entry->path());
  }
  if (error) {
    throw std::invalid_argument("[data] cannot read the folder " + folder.string() + ": " +
                                error.message());
  }
  std::sort(paths.begin(), paths.end());
  for (const fs::path& path : paths) {
    const fs::file_type type = fs::status(path, error).type();
    if (type == fs::file_type::directory) add_files(path, entered, files);
    if (type == fs::file_type::regular) files.push_back(path);
  }
}

}  // namespace

std::vector<fs::path> corpus_files(const std::string& path) {
  std::error_code error;
  const fs::file_type type = fs::status(path, error).type();
  if (type == fs::file_type::regular) return {path};
  if (type == fs::file_type::not_found) {
    throw std::invalid_argument("[data] cannot read " + path +
                                ": no such file or folder; --data names "
                                "the text");
  }
  if (error) throw std::invalid_argument("[data] cannot read " + path + ": " + error.message());
  if (type != fs::file_type::directory) {
    throw std::invalid_argument("[data] cannot read " + path +
                                ": it is neither a file nor a folder; name one of text");
  }
  std::vector<fs::path> files;
  std::set<fs::path> entered;
  add_files(path, entered, files);
  if (files.empty())
    throw std::invalid_argument("[data] the folder " + path +
                                " holds no files; name one of text with --data");
  std::sort(files.begin(), files.end());
  return files;
}

std::string read_bytes(const fs::path& file) {
  if (fs::is_directory(file)) {
    throw std::invalid_argument("[data] " + file.string() +
                                " is a folder, not a file; name a file");
  }
  std::ifstream stream(file, std::ios::binary | std::ios::ate);
  const auto size = stream ? static_cast<std::streamoff>(stream.tellg()) : -1;
  std::string bytes(static_cast<size_t>(std::max<std::streamoff>(size, 0)), '\0');
  if (size < 0 || !stream.seekg(0) || (size > 0 && !stream.read(bytes.data(), size))) {
    throw std::invalid_argument("[data] cannot read " + file.string() + ": " +
                                std::strerror(errno));
  }
  return bytes;
}

std::string read_text(const fs::path& file) {
  std::string bytes = read_bytes(file);
  require_utf8(bytes, file);
  std::string text = unix_lines(std::move(bytes));
  if (text.empty())
    throw std::invalid_argument("[data] " + file.string() + " is empty; name another with --data");
  return text;
}

std::vector<std::string> read_documents(const fs::path& file) {
  std::string text = read_text(file);
  if (file.extension() != ".jsonl") return {std::move(text)};
  auto documents = documents_of_lines(text, file.string());
  if (documents.empty()) {
    throw std::invalid_argument("[data] " + file.string() +
                                " holds no text; name another with --data");
  }
  return documents;
}

}  // namespace nanoflex::data
