// Text on disk -> documents.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace nanoflex::data {

// The files that `path` names: itself, or every regular file below a folder in sorted order, hidden
// ones left out. Links are followed, but no folder is read twice. Throws std::invalid_argument when
// there is none or it cannot be read.
std::vector<std::filesystem::path> corpus_files(const std::string& path);

// One document a file, or one a line of a .jsonl file (its field `text`; blank lines are skipped).
// Throws std::invalid_argument, naming file and line, for malformed JSON, invalid UTF-8 and empty
// files.
std::vector<std::string> read_documents(const std::filesystem::path& file);

// The whole of a text file as UTF-8, without byte order mark, with \n for \r\n.
std::string read_text(const std::filesystem::path& file);

// The whole of a file as it is.
std::string read_bytes(const std::filesystem::path& file);

}  // namespace nanoflex::data
