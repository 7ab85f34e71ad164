// Files and small data sets for the tests of data/.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "data/shard.h"

namespace nanoflex::data {

// A folder of the running test's own, empty at first and removed at the end.
class Scratch {
 public:
  Scratch() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) /
              (std::string("nanoflex_") + test->test_suite_name() + "_" + test->name() + "_" +
               std::to_string(::getpid()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  std::string write(const std::string& name, const std::string& content) const {
    std::filesystem::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return path(name);
  }

  // vocab_size above 65536 makes a uint32 shard.
  std::string write_shard(const std::string& name, const std::vector<int32_t>& tokens,
                          int64_t vocab_size = 50304) const {
    ShardWriter writer(path(name), vocab_size);
    writer.append(tokens);
    writer.commit();
    return path(name);
  }

 private:
  std::filesystem::path folder_;
};

inline std::string refusal(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "nothing was refused";
}

// Expects that `action` throws std::invalid_argument with `part` in a one-line message.
inline void expect_refusal(const std::string& part, const std::function<void()>& action) {
  const std::string message = refusal(action);
  EXPECT_TRUE(message.find(part) != std::string::npos)
      << "wanted: " << part << "\ngot: " << message;
  EXPECT_TRUE(message.find('\n') == std::string::npos) << message;
}

inline std::vector<int64_t> all_tokens(const Tokens& tokens) {
  std::vector<int64_t> all(tokens.size());
  tokens.copy(0, tokens.size(), all.data());
  return all;
}

// Verses with a small vocabulary of words: text that a tokenizer can be trained on in an instant.
inline std::string verses(int number, int lines) {
  const char* words[] = {"the",     "bird",    "of",   "loudest", "lay",   "on",
                         "sole",    "Arabian", "tree", "herald",  "sad",   "and",
                         "trumpet", "be",      "to",   "whose",   "sound", "chaste"};
  unsigned state = 1234567u + 977u * number;
  std::string text = "VERSE " + std::to_string(number) + "\n\n";
  for (int line = 0; line < lines; ++line) {
    for (int word = 0; word < 7; ++word) {
      state = state * 1664525u + 1013904223u;
      text += std::string(words[(state >> 16) % std::size(words)]) + (word < 6 ? " " : ".\n");
    }
  }
  return text;
}

}  // namespace nanoflex::data
