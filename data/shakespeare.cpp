#include "data/shakespeare.h"

#include <algorithm>
#include <cstring>
#include <regex>
#include <stdexcept>

namespace nanoflex::data {

namespace fs = std::filesystem;

namespace {

enum class Line { kBlank, kAct, kScene, kPrologue, kSection, kNumber, kText };

// The files write "ACT I.", "Act 1", "ACT FIFTH", "ACT IV. SCENE I. A camp.", "SCENE 2.The same.",
// "Scene II.-- The Same", "SCENE XIII", but a cast list's "SCENE: Troy" and a speech's "act hath
// three branches" open nothing.
const std::string kOrdinal = "([IVX]+|[0-9]+|FIRST|SECOND|THIRD|FOURTH|FIFTH)";

struct Headings {
  std::regex act{"\\s*(ACT|Act)\\s+" + kOrdinal + "\\.?\\s*"};
  std::regex scene{"\\s*((ACT|Act)\\s+" + kOrdinal + "\\.?\\s+)?(SCENE|Scene)\\s+" + kOrdinal +
                   "(\\s*|\\s*[.:,-].*)"};
  std::regex prologue{"\\s*(PROLOGUE|Prologue)\\.?\\s*"};
  std::regex section{"\\s*(EPILOGUE|Epilogue|INDUCTION|Induction)\\.?\\s*"};
  std::regex number{"\\s*[IVXLC]+\\.?\\s*"};

  Line classify(const std::string& line) const {
    constexpr size_t kLongestHeading = 200;
    const size_t first = line.find_first_not_of(" \t");
    if (first == std::string::npos) return Line::kBlank;
    // Every heading begins with one of these; asking first keeps the regular expressions off most
    // lines.
    if (line.size() > kLongestHeading || !std::strchr("ASPEIVXLC", line[first])) return Line::kText;
    if (std::regex_match(line, act)) return Line::kAct;
    if (std::regex_match(line, scene)) return Line::kScene;
    if (std::regex_match(line, prologue)) return Line::kPrologue;
    if (std::regex_match(line, section)) return Line::kSection;
    return std::regex_match(line, number) ? Line::kNumber : Line::kText;
  }
};

struct LineSpan {
  std::string_view text;
  Line kind;
};

std::vector<LineSpan> classified_lines(std::string_view text) {
  const Headings headings;
  std::vector<LineSpan> lines;
  while (!text.empty()) {
    const size_t size = std::min(text.find('\n'), text.size() - 1) + 1;
    std::string line(text.substr(0, size));
    if (line.ends_with('\n')) line.pop_back();
    lines.push_back({text.substr(0, size), headings.classify(line)});
    text.remove_prefix(size);
  }
  return lines;
}

std::string without_blank_edges(std::string_view text) {
  const size_t last = text.find_last_not_of(" \t\n");
  if (last == std::string_view::npos) return "";
  const size_t first_letter = text.find_first_not_of(" \t\n");
  const size_t line_start = text.substr(0, first_letter).rfind('\n');
  const size_t begin = line_start == std::string_view::npos ? 0 : line_start + 1;
  return std::string(text.substr(begin, last + 1 - begin)) + "\n";
}

// Cuts before each line that `opens` says opens a document.
template <typename Opens>
std::vector<std::string> cut(const std::vector<LineSpan>& lines, const Opens& opens) {
  std::vector<std::string> documents(1);
  for (const LineSpan& line : lines) {
    if (opens(line.kind)) documents.emplace_back();
    documents.back() += line.text;
  }
  for (std::string& document : documents) document = without_blank_edges(document);
  std::erase(documents, "");
  return documents;
}

std::vector<std::string> split_play(const std::vector<LineSpan>& lines) {
  // A heading straight after an act's or an induction's belongs to it. PROLOGUE is a heading only
  // there or before the first scene: elsewhere it is a speaker, the players' within A Midsummer
  // Night's Dream.
  bool only_headings = false, before_first_scene = true;
  return cut(lines, [&](Line kind) {
    if (kind == Line::kBlank) return false;
    const bool heading = kind == Line::kAct || kind == Line::kScene || kind == Line::kSection ||
                         (kind == Line::kPrologue && (only_headings || before_first_scene));
    const bool opens = heading && !only_headings;
    only_headings = heading && kind != Line::kPrologue;
    before_first_scene = before_first_scene && kind != Line::kScene;
    return opens;
  });
}

std::vector<std::string> split_poems(const std::vector<LineSpan>& lines) {
  constexpr size_t kTitleBytes = 200;
  auto documents = cut(lines, [](Line kind) { return kind == Line::kNumber; });
  if (documents.size() > 1 && documents[0].size() < kTitleBytes) {
    documents[1] = documents[0] + "\n" + documents[1];
    documents.erase(documents.begin());
  }
  return documents;
}

}  // namespace

std::vector<fs::path> shakespeare_files(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().filename().string().ends_with("_gut.txt")) files.push_back(entry.path());
  }
  if (files.empty()) {
    throw std::invalid_argument("[data] the default text is not in " + folder.string() +
                                "; run `make setup`, or give a text of your own with --data");
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<std::string> split_work(std::string_view text) {
  const auto lines = classified_lines(text);
  const bool is_play = std::any_of(lines.begin(), lines.end(),
                                   [](const LineSpan& line) { return line.kind == Line::kScene; });
  return is_play ? split_play(lines) : split_poems(lines);
}

}  // namespace nanoflex::data
