#include "attention/flex/parse.h"

#include <charconv>
#include <stdexcept>
#include <vector>

#include "attention/flex/names.h"
#include "attention/flex/tokens.h"

namespace nanoflex::flex {
namespace {

constexpr int kMaxNesting = 64;

struct Complaint {
  std::string what, mend;
};

// "[area] WHAT; MEND", of which the area and the mend may be missing, without the area.
Complaint complaint(const std::invalid_argument& problem) {
  std::string text = problem.what();
  const size_t area = text.starts_with('[') ? text.find("] ") : std::string::npos;
  if (area != std::string::npos) text.erase(0, area + 2);
  const size_t end = text.find("; ");
  return {text.substr(0, end), end == std::string::npos ? "" : text.substr(end + 2)};
}

class Parser {
 public:
  Parser(const std::string& text, bool is_score, const Vocabulary& vocabulary)
      : is_score_(is_score),
        tokens_(is_score ? "score" : "mask", text),
        names_(is_score ? "score" : "mask", is_score, vocabulary.tensors),
        token_(tokens_.next()) {}

  Expression whole() {
    const Token first = token_;
    const Expression value = binary(0);
    if (token_.text == "[") {
      fail("unexpected '['", token_, "only tensors have indices. " + names_.tensor_advice(""));
    }
    if (token_.kind != Token::kEnd) {
      fail("unexpected '" + shortened(token_.text) + "'", token_,
           "join values with an operator, as in causal & window(4)");
    }
    return guarded(first,
                   is_score_ ? "make numbers of it, as in select(causal, score, -inf)"
                             : "compare numbers, as in q - kv < 4",
                   [&] { return is_score_ ? require_score(value) : require_mask(value); });
  }

 private:
  [[noreturn]] void fail(const std::string& what, const Token& where,
                         const std::string& mend) const {
    tokens_.fail(what, where.column, mend);
  }

  // What `make` makes, its refusal told at a place in the text.
  template <typename Make>
  Expression guarded(const Token& where, const std::string& mend, const Make& make) const {
    try {
      return make();
    } catch (const std::invalid_argument& problem) {
      const Complaint told = complaint(problem);
      fail(told.what, where, told.mend.empty() ? mend : told.mend);
    }
  }

  Expression applied(const Operator& op, const Token& where,
                     const std::vector<Expression>& operands) const {
    const bool divides = op.op == Op::kDivide || op.op == Op::kRemainder;
    const std::string mend = op.rule == Rule::kLogic    ? "comparisons and masks are truth values"
                             : op.rule == Rule::kSelect ? "write select(condition, yes, no)"
                             : divides                  ? "divide a number by one that is not 0"
                                       : "select(condition, 1, 0) makes a number of a truth value";
    return guarded(where, mend, [&] { return apply(op.op, operands); });
  }

  void advance() { token_ = tokens_.next(); }

  bool take(const std::string& symbol) {
    if (token_.kind != Token::kSymbol || token_.text != symbol) return false;
    advance();
    return true;
  }

  void expect(const std::string& symbol, const std::string& mend) {
    if (take(symbol)) return;
    fail("expected '" + symbol + "' but found '" + shortened(token_.text) + "'", token_, mend);
  }

  // Precedence climbing: reads operators that bind tighter than `floor`, grouping from the left.
  Expression binary(int floor) {
    Expression left = unary();
    bool compared = false;
    while (const Operator* op = binary_operator()) {
      if (op->binds <= floor) break;
      const Token where = token_;
      const bool compares = op->rule == Rule::kCompare;
      if (compared && compares) {
        fail("comparisons do not chain: unexpected '" + op->text + "'", where,
             "write a < b & b < c");
      }
      advance();
      const Expression right = binary(op->binds);
      left = applied(*op, where, {left, right});
      compared = compares;
    }
    return left;
  }

  const Operator* binary_operator() const {
    if (token_.kind != Token::kSymbol) return nullptr;
    for (const Operator& op : operators()) {
      if (op.operands == 2 && op.binds < kUnaryBinds && op.text == token_.text) return &op;
    }
    return nullptr;
  }

  Expression unary() {
    const Nesting nesting(*this);
    const Token where = token_;
    if (take("!")) return applied(describe(Op::kNot), where, {unary()});
    if (take("-")) {
      // The least integer has no positive counterpart, so the sign is read with the digits.
      if (token_.kind == Token::kNumber) return literal("-");
      return applied(describe(Op::kNegate), where, {unary()});
    }
    if (take("(")) {
      const Expression inside = binary(0);
      expect(")", "close what '(' opened");
      return inside;
    }
    if (token_.kind == Token::kNumber) return literal("");
    if (token_.kind == Token::kName) return named();
    fail("expected a value but found '" + token_.text + "'", token_, names_.known());
  }

  Expression literal(const std::string& sign) {
    const Token number = token_;
    advance();
    const std::string text = sign + number.text;
    if (text.find_first_not_of("-0123456789") == std::string::npos) {
      return read<int64_t>(text, number, "use integers of less than 2^63");
    }
    return read<double>(text, number, "write numbers as 12, 1.5 or 2e-3");
  }

  template <typename Number>
  Expression read(const std::string& text, const Token& where, const std::string& mend) const {
    Number value = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error == std::errc::result_out_of_range) {
      fail("'" + shortened(text) + "' is out of range", where, mend);
    }
    if (error != std::errc() || stop != end) {
      fail("'" + shortened(text) + "' is not a number", where, mend);
    }
    return value;
  }

  Expression named() {
    const Token name = token_;
    advance();
    if (token_.kind == Token::kSymbol && token_.text == "[") return indexed(name);
    if (const Operator* index = names_.index(name.text)) return leaf(*index, name);
    if (const auto constant = names_.constant(name.text)) return *constant;
    if (const Operator* function = names_.function(name.text)) return call(*function, name);
    if (const Named* mask = names_.mask(name.text)) return make(*mask, name);
    if (const Named* score = names_.score(name.text)) {
      require_score_text(name);
      return make(*score, name);
    }
    if (const auto type = names_.tensor(name.text)) return Captured(name.text, *type);
    fail("unknown name '" + shortened(name.text) + "'", name, names_.advice(name.text));
  }

  void require_score_text(const Token& name) const {
    if (is_score_) return;
    fail("a mask cannot read the score: '" + name.text + "'", name,
         "scores are given beside masks");
  }

  Expression leaf(const Operator& index, const Token& name) const {
    switch (index.op) {
      case Op::kBatch:
        return batch_index();
      case Op::kHead:
        return head_index();
      case Op::kQuery:
        return query_index();
      case Op::kKey:
        return key_index();
      default:
        require_score_text(name);
        return score_value();
    }
  }

  Expression indexed(const Token& name) {
    const std::optional<Type> type = names_.tensor(name.text);
    if (!type) {
      fail("'" + shortened(name.text) + "' is no tensor, only tensors have indices", name,
           names_.tensor_advice(name.text));
    }
    Expression tensor = Captured(name.text, *type);
    while (take("[")) {
      const Token where = token_;
      const Expression index = binary(0);
      expect("]", "close what '[' opened");
      tensor =
          guarded(where, "floor(x) makes an integer of a number", [&] { return tensor[index]; });
    }
    return tensor;
  }

  Expression call(const Operator& function, const Token& name) {
    const std::string mend = "write " + usage(function);
    expect("(", mend);
    std::vector<Expression> operands;
    for (int i = 0; i < function.operands; ++i) {
      if (i > 0) expect(",", mend);
      operands.push_back(binary(0));
    }
    expect(")", mend);
    return applied(function, name, operands);
  }

  Expression make(const Named& named, const Token& name) {
    const std::string mend = "write " + named.signature();
    if (named.parameters.empty()) {
      if (token_.text == "(") fail("'" + named.name + "' takes no argument", token_, mend);
      return named.make({});
    }
    Arguments arguments;
    expect("(", mend);
    for (size_t i = 0; i < named.parameters.size(); ++i) {
      if (i > 0) expect(",", mend);
      arguments.push_back(argument(named, named.parameters[i]));
    }
    expect(")", mend);
    return guarded(name, mend, [&] { return named.make(arguments); });
  }

  at::Scalar argument(const Named& named, const Parameter& parameter) {
    const std::string mend = named.signature() + " needs " + parameter.wanted();
    const Token where = token_;
    const std::string sign = take("-") ? "-" : "";
    if (token_.kind != Token::kNumber) {
      fail("'" + shortened(sign + token_.text) + "' is not such a number", where, mend);
    }
    const std::string text = shortened(sign + token_.text);
    const at::Scalar value = literal(sign).node().constant;
    if (!parameter.allows(value)) fail("'" + text + "' is not such a number", where, mend);
    return parameter.type == Type::kFloat ? at::Scalar(value.toDouble()) : value;
  }

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

  const bool is_score_;
  Tokenizer tokens_;
  Names names_;
  Token token_;
  int nesting_ = 0;
};

}  // namespace

Vocabulary vocabulary_of(const std::map<std::string, at::Tensor>& tensors) {
  Vocabulary vocabulary;
  for (const auto& [name, tensor] : tensors) {
    const at::ScalarType dtype = tensor.scalar_type();
    vocabulary.tensors[name] = at::isFloatingType(dtype) ? Type::kFloat
                               : dtype == at::kBool      ? Type::kBool
                                                         : Type::kInt;
  }
  return vocabulary;
}

Expression parse_mask(const std::string& text, const Vocabulary& vocabulary) {
  return Parser(text, false, vocabulary).whole();
}

Expression parse_score(const std::string& text, const Vocabulary& vocabulary) {
  return Parser(text, true, vocabulary).whole();
}

}  // namespace nanoflex::flex
