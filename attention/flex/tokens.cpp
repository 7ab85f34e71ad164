#include "attention/flex/tokens.h"

#include <algorithm>
#include <cctype>
#include <stdexcept>
#include <string_view>

namespace nanoflex::flex {
namespace {

constexpr size_t kMaxShown = 80;
constexpr std::string_view kSpaces = " \t\r\n", kSymbols = "|&!=<>+-*/%()[],";

bool starts_name(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool continues_name(char c) { return starts_name(c) || is_digit(c); }

// One line of visible characters, one for each byte.
std::string printable(std::string text) {
  for (char& c : text) {
    if (kSpaces.find(c) != std::string_view::npos) c = ' ';
    if (!std::isprint(static_cast<unsigned char>(c))) c = '?';
  }
  return text;
}

// The text around a column, and a caret under it.
std::string excerpt(const std::string& text, size_t column) {
  const size_t place = std::min(column - 1, text.size());
  const size_t begin = text.size() > kMaxShown && place > kMaxShown / 2 ? place - kMaxShown / 2 : 0;
  const std::string before = begin > 0 ? "  ..." : "  ";
  const std::string after = text.size() > begin + kMaxShown ? "..." : "";
  const std::string line = before + printable(text.substr(begin, kMaxShown)) + after;
  return line + "\n" + std::string(before.size() + place - begin, ' ') + "^";
}

}  // namespace

std::string shortened(const std::string& text) {
  std::string shown = text.substr(0, kMaxShown);
  if (text.size() > kMaxShown) shown.append("...");
  return shown;
}

Tokenizer::Tokenizer(std::string area, const std::string& text)
    : area_(std::move(area)), text_(text) {
  if (text.size() <= kMaxCharacters) return;
  fail("the text has " + std::to_string(text.size()) + " characters, at most " +
           std::to_string(kMaxCharacters) + " are read; it goes on",
       kMaxCharacters + 1, "write it shorter");
}

void Tokenizer::fail(const std::string& what, size_t column, const std::string& mend) const {
  const std::string quoted = printable(text_.substr(0, kMaxShown + 1));
  throw std::invalid_argument("[" + area_ + "] " + what + " at column " + std::to_string(column) +
                              " of \"" + shortened(quoted) + "\"; " + mend + "\n" +
                              excerpt(text_, column));
}

Token Tokenizer::take(Token::Kind kind, size_t length) {
  Token token = {kind, text_.substr(position_, length), position_ + 1};
  position_ += length;
  return token;
}

Token Tokenizer::next() {
  position_ = std::min(text_.find_first_not_of(kSpaces, position_), text_.size());
  if (position_ == text_.size()) return {Token::kEnd, "end", position_ + 1};
  const auto run = [&](auto belongs) {
    size_t end = position_;
    while (end < text_.size() && belongs(end)) ++end;
    return end - position_;
  };
  const char first = text_[position_];
  const char second = position_ + 1 < text_.size() ? text_[position_ + 1] : '\0';
  if (starts_name(first)) {
    return take(Token::kName, run([&](size_t i) { return continues_name(text_[i]); }));
  }
  if (is_digit(first) || (first == '.' && is_digit(second))) {
    // Letters belong to it, so that 12ab is one bad number; so does the sign in 1e-5.
    return take(Token::kNumber, run([&](size_t i) {
                  const char c = text_[i];
                  const bool sign = (c == '-' || c == '+') && i > position_ &&
                                    (text_[i - 1] == 'e' || text_[i - 1] == 'E');
                  return continues_name(c) || c == '.' || sign;
                }));
  }
  if (const size_t length = symbol_length(); length > 0) return take(Token::kSymbol, length);
  fail("unexpected '" + printable(std::string(1, first)) + "'", position_ + 1,
       "what may stand here: names, numbers, + - * / %, comparisons, & | ! and ( ) [ ] ,");
}

// Of the symbol at the position; 0 where there is none. Refuses those of other languages.
size_t Tokenizer::symbol_length() const {
  struct Foreign {
    const char *symbol, *mend;
  };
  static constexpr Foreign kForeign[] = {
      {"&&", "write &"},
      {"||", "write |"},
      {"**", "write x * x, or exp(y * log(x))"},
      {"//", "write /, which divides integers to the floor"},
      {"^", "write x * x, or exp(y * log(x)) for a power"},
      {"?", "write select(condition, yes, no)"},
  };
  const std::string_view rest = std::string_view(text_).substr(position_);
  for (const Foreign& foreign : kForeign) {
    if (rest.starts_with(foreign.symbol)) {
      fail(std::string("unexpected '") + foreign.symbol + "'", position_ + 1, foreign.mend);
    }
  }
  for (const char* two : {"==", "!=", "<=", ">="}) {
    if (rest.starts_with(two)) return 2;
  }
  if (rest[0] == '=') fail("unexpected '='", position_ + 1, "write == to compare");
  return kSymbols.find(rest[0]) == std::string_view::npos ? 0 : 1;
}

}  // namespace nanoflex::flex
