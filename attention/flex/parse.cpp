#include "attention/flex/parse.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <stdexcept>
#include <vector>

#include "attention/nearest.h"

namespace nanoflex::flex {
namespace {

constexpr size_t kMaxCharacters = 4096, kMaxShown = 80;
constexpr int kMaxNesting = 64;

struct Token {
  enum Kind { kName, kNumber, kSymbol, kEnd } kind;
  std::string text;
  size_t column;  // from 1
};

// Text as a message may quote it: one line, no control characters, not endless.
std::string quotable(const std::string& text) {
  std::string shown = text.substr(0, kMaxShown);
  for (char& c : shown) {
    if (!std::isprint(static_cast<unsigned char>(c))) c = '?';
  }
  return "\"" + shown + (text.size() > kMaxShown ? "..." : "") + "\"";
}

bool starts_name(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {
    if (text.size() > kMaxCharacters) {
      throw std::invalid_argument("[mask] the text has " + std::to_string(text.size()) +
                                  " characters, at most " + std::to_string(kMaxCharacters) +
                                  " are read: " + quotable(text));
    }
    advance();
  }

  Expression whole() {
    const Expression mask = binary(0);
    if (token_.kind != Token::kEnd) {
      fail("unexpected '" + token_.text + "'", token_, "join masks with & or |");
    }
    return mask;
  }

 private:
  [[noreturn]] void fail(const std::string& what, const Token& where,
                         const std::string& mend) const {
    throw std::invalid_argument("[mask] " + what + " at column " + std::to_string(where.column) +
                                " of " + quotable(text_) + "; " + mend);
  }

  void advance() {
    while (position_ < text_.size() && (text_[position_] == ' ' || text_[position_] == '\t')) {
      ++position_;
    }
    const size_t begin = position_;
    token_.column = begin + 1;
    if (begin == text_.size()) {
      token_ = {Token::kEnd, "end", begin + 1};
      return;
    }
    const auto run = [&](auto belongs) {
      while (position_ < text_.size() && belongs(text_[position_])) ++position_;
    };
    const char first = text_[begin];
    if (starts_name(first)) {
      run([](char c) { return starts_name(c) || is_digit(c); });
      token_.kind = Token::kName;
    } else if (is_digit(first)) {
      run([](char c) { return starts_name(c) || is_digit(c) || c == '.'; });
      token_.kind = Token::kNumber;
    } else if (std::string_view("&|!(),-").find(first) != std::string_view::npos) {
      ++position_;
      token_.kind = Token::kSymbol;
    } else {
      const std::string shown(1, std::isprint(static_cast<unsigned char>(first)) ? first : '?');
      fail("unexpected '" + shown + "'", token_, "masks are made of names, & | ! and ( )");
    }
    token_.text = text_.substr(begin, position_ - begin);
  }

  bool take(const std::string& symbol) {
    if (token_.kind != Token::kSymbol || token_.text != symbol) return false;
    advance();
    return true;
  }

  void expect(const std::string& symbol, const std::string& mend) {
    if (!take(symbol))
      fail("expected '" + symbol + "' but found '" + token_.text + "'", token_, mend);
  }

  // Precedence climbing: reads operators that bind tighter than `floor`, grouping from the left.
  Expression binary(int floor) {
    Expression left = unary();
    while (const Operator* op = binary_operator()) {
      if (op->binds <= floor) break;
      advance();
      const Expression right = binary(op->binds);
      left = apply(op->op, {left, right});
    }
    return left;
  }

  const Operator* binary_operator() const {
    static const Operator* const known[] = {&describe(Op::kAnd), &describe(Op::kOr)};
    if (token_.kind != Token::kSymbol) return nullptr;
    for (const Operator* op : known) {
      if (op->text == token_.text) return op;
    }
    return nullptr;
  }

  Expression unary() {
    const Nesting nesting(*this);
    if (take("!")) return !unary();
    if (take("(")) {
      const Expression inside = binary(0);
      expect(")", "close what '(' opened");
      return inside;
    }
    return named();
  }

  Expression named() {
    if (token_.kind != Token::kName) {
      fail("expected a mask but found '" + token_.text + "'", token_, known());
    }
    const Token name = token_;
    for (const NamedMask& mask : named_masks()) {
      if (mask.name != name.text) continue;
      advance();
      return mask.make(arguments(mask));
    }
    std::vector<std::string> names;
    for (const NamedMask& mask : named_masks()) names.push_back(mask.name);
    const std::string close = nearest(name.text, names);
    fail("unknown name '" + name.text.substr(0, kMaxShown) + "'", name,
         (close.empty() ? "" : "did you mean '" + close + "'? ") + known());
  }

  std::vector<int64_t> arguments(const NamedMask& mask) {
    std::vector<int64_t> values;
    const std::string usage = "write " + mask.signature();
    if (mask.parameters.empty()) {
      if (token_.text == "(") fail("'" + mask.name + "' takes no argument", token_, usage);
      return values;
    }
    expect("(", usage);
    for (size_t i = 0; i < mask.parameters.size(); ++i) {
      if (i > 0) expect(",", usage);
      values.push_back(integer(mask, mask.parameters[i]));
    }
    expect(")", usage);
    return values;
  }

  int64_t integer(const NamedMask& mask, const std::string& parameter) {
    const std::string mend = mask.signature() + " needs an integer " + parameter + " of at least 0";
    Token number = token_;
    int64_t value = 0;
    const char* end = number.text.data() + number.text.size();
    const auto read = std::from_chars(number.text.data(), end, value);
    if (number.kind != Token::kNumber || read.ec != std::errc() || read.ptr != end) {
      number.text.resize(std::min(number.text.size(), kMaxShown));
      fail("'" + number.text + "' is not such a number", number, mend);
    }
    advance();
    return value;
  }

  static std::string known() { return "known: " + join(mask_names()); }

  struct Nesting {
    explicit Nesting(Parser& parser) : parser(parser) {
      if (++parser.nesting_ > kMaxNesting) {
        parser.fail("more than " + std::to_string(kMaxNesting) + " levels of nesting",
                    parser.token_, "write it flatter");
      }
    }
    ~Nesting() { --parser.nesting_; }
    Parser& parser;
  };

  const std::string& text_;
  size_t position_ = 0;
  Token token_ = {Token::kEnd, "", 1};
  int nesting_ = 0;
};

}  // namespace

Expression parse_mask(const std::string& text) { return require_mask(Parser(text).whole()); }

}  // namespace nanoflex::flex
