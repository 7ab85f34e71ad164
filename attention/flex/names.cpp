#include "attention/flex/names.h"

#include <algorithm>
#include <cctype>
#include <limits>
#include <stdexcept>

#include "attention/flex/masks.h"
#include "attention/flex/scores.h"
#include "attention/nearest.h"

namespace nanoflex::flex {
namespace {

constexpr size_t kLongestName = 64, kMaxListed = 32;

const std::vector<std::pair<std::string, Expression>>& constants() {
  static const std::vector<std::pair<std::string, Expression>> table = {
      {"true", true}, {"false", false}, {"inf", std::numeric_limits<double>::infinity()}};
  return table;
}

bool is_index(const Operator& op) {
  return op.rule == Rule::kLeaf && op.op != Op::kConstant && op.op != Op::kLoad;
}

bool is_function(const Operator& op) { return op.rule != Rule::kLeaf && op.binds == kTightest; }

const Operator* find_operator(const std::string& name, bool (*belongs)(const Operator&)) {
  for (const Operator& op : operators()) {
    if (belongs(op) && op.text == name) return &op;
  }
  return nullptr;
}

// Names of tensors may come from strangers' files; text can only mean those that are words.
bool is_word(const std::string& name) {
  return !name.empty() && name.size() <= kLongestName &&
         !std::isdigit(static_cast<unsigned char>(name[0])) &&
         std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return c < 128 && (std::isalnum(c) || c == '_'); });
}

std::string meant(const std::string& name, const std::vector<std::string>& candidates) {
  const std::string close = name.size() > kLongestName ? "" : nearest(name, candidates);
  return close.empty() ? "" : "did you mean '" + close + "'? ";
}

std::vector<std::string> words(const std::map<std::string, Type>& tensors) {
  std::vector<std::string> names;
  for (const auto& [name, type] : tensors) {
    if (is_word(name)) names.push_back(name);
  }
  return names;
}

std::string listed(const std::vector<std::string>& names) {
  if (names.size() <= kMaxListed) return join(names);
  return join({names.begin(), names.begin() + kMaxListed}) + " and " +
         std::to_string(names.size() - kMaxListed) + " more";
}

}  // namespace

std::string usage(const Operator& function) {
  static const std::vector<std::string> by_operands[] = {
      {}, {"x"}, {"x", "y"}, {"condition", "yes", "no"}};
  return function.text + "(" + join(by_operands[function.operands]) + ")";
}

Names::Names(const std::string& area, bool in_score, const std::map<std::string, Type>& tensors)
    : in_score_(in_score), tensors_(tensors) {
  const auto& standard = standard_tensors();
  for (const auto& [name, type] : tensors) {
    const auto known = standard.find(name);
    if (known != standard.end() && known->second != type) {
      throw std::invalid_argument("[" + area + "] tensor '" + name +
                                  "' must hold elements of type " + type_name(known->second) +
                                  ", holds " + type_name(type));
    }
    if (known == standard.end() && is_builtin(name)) {
      throw std::invalid_argument("[" + area + "] tensor '" + name +
                                  "' has a name that means something else; rename it");
    }
  }
  tensors_.insert(standard.begin(), standard.end());
}

bool Names::is_builtin(const std::string& name) const {
  return index(name) || function(name) || mask(name) || score(name) || constant(name);
}

const Operator* Names::index(const std::string& name) const {
  return find_operator(name, is_index);
}

const Operator* Names::function(const std::string& name) const {
  return find_operator(name, is_function);
}

const Named* Names::mask(const std::string& name) const { return find_named(named_masks(), name); }
const Named* Names::score(const std::string& name) const {
  return find_named(named_scores(), name);
}

std::optional<Expression> Names::constant(const std::string& name) const {
  for (const auto& [word, value] : constants()) {
    if (word == name) return value;
  }
  return std::nullopt;
}

std::optional<Type> Names::tensor(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? std::nullopt : std::optional(found->second);
}

std::string Names::known() const {
  std::vector<std::string> all = mask_names();
  const auto append = [&](const std::vector<std::string>& more) {
    all.insert(all.end(), more.begin(), more.end());
  };
  if (in_score_) append(score_names());
  for (const Operator& op : operators()) {
    if (is_index(op) && (in_score_ || op.op != Op::kScore)) all.push_back(op.text);
  }
  for (const Operator& op : operators()) {
    if (is_function(op)) all.push_back(op.text);
  }
  for (const auto& [word, value] : constants()) all.push_back(word);
  return "known: " + join(all) + "; tensors " + listed(words(tensors_));
}

std::string Names::advice(const std::string& name) const {
  static const std::pair<std::string, std::string> foreign[] = {
      {"and", "write &. "}, {"or", "write |. "}, {"not", "write !. "}, {"where", "write select. "}};
  for (const auto& [word, instead] : foreign) {
    if (word == name) return instead + known();
  }
  std::vector<std::string> candidates = words(tensors_);
  for (const Named& named : named_masks()) candidates.push_back(named.name);
  if (in_score_) {
    for (const Named& named : named_scores()) candidates.push_back(named.name);
  }
  for (const Operator& op : operators()) {
    if (is_function(op) || (is_index(op) && (in_score_ || op.op != Op::kScore))) {
      candidates.push_back(op.text);
    }
  }
  for (const auto& [word, value] : constants()) candidates.push_back(word);
  return meant(name, candidates) + known();
}

std::string Names::tensor_advice(const std::string& name) const {
  const std::vector<std::string> candidates = words(tensors_);
  return meant(name, candidates) + "tensors: " + listed(candidates);
}

}  // namespace nanoflex::flex
