#pragma once

#include <string>

namespace nanoflex::flex {

constexpr size_t kMaxCharacters = 4096;

struct Token {
  enum Kind { kName, kNumber, kSymbol, kEnd } kind = kEnd;
  std::string text = "end";
  size_t column = 1;  ///< from 1, in bytes
};

/// Cuts a text into names, numbers and symbols, and says where it is wrong.
class Tokenizer {
 public:
  /// `area` ("mask") opens the messages. REQUIRES: `text` outlives this. Throws
  /// std::invalid_argument for texts of more than kMaxCharacters.
  Tokenizer(std::string area, const std::string& text);

  /// The next token; the end again and again at the end. Throws as fail() does.
  Token next();

  /// Throws std::invalid_argument of three lines: "[area] WHAT at column N of "text"; MEND", the
  /// text (of a long one, the part that matters) and a caret under the character. All of it is
  /// printable, whatever the text holds.
  [[noreturn]] void fail(const std::string& what, size_t column, const std::string& mend) const;

 private:
  Token take(Token::Kind kind, size_t length);
  size_t symbol_length() const;

  std::string area_;
  const std::string& text_;
  size_t position_ = 0;
};

/// A name or symbol as a message may quote it: not endless.
std::string shortened(const std::string& text);

}  // namespace nanoflex::flex
