#include "attention/flex/tile_code.h"

#include <algorithm>
#include <iomanip>
#include <sstream>
#include <stdexcept>
#include <unordered_map>
#include <unordered_set>

#include "attention/flex/bounds.h"
#include "attention/flex/derivative.h"
#include "attention/flex/remembered.h"
#include "attention/flex/simplify.h"

namespace nanoflex::flex {

Box TileCodeOptions::box() const { return whole_box(B, H, T, S); }

TileCode::TileCode(const TileCodeOptions& options, Pass pass) {
  TileCodeBuilder builder(options.box(), pass == Pass::kForward);
  if (options.mask.defined()) {
    const int visible = builder.lower(simplify(options.mask), Type::kBool);
    program_.has_mask = true;
    program_.visible = builder.emit({visible}, mask_)[0];
  }
  if (options.score.defined()) {
    const Expression score = simplify(options.score);
    std::vector<int> roots = {builder.lower(score, Type::kFloat)};
    if (pass == Pass::kBackward) {
      roots.push_back(builder.lower(flex::derivative(score), Type::kFloat));
      add_reads(score, builder, roots);
    }
    const std::vector<cpu::Value> results = builder.emit_score(roots, score_);
    program_.has_score = true;
    if (pass == Pass::kBackward) program_.derivative = results[1];
    for (size_t i = 0; i < reads_.size(); ++i) {
      reads_[i].derivative = results[2 + 2 * i];
      reads_[i].index = results[3 + 2 * i];
    }
  }
  shared_ = builder.take();
  std::copy(std::begin(shared_.slots), std::end(shared_.slots), program_.slots);
  const auto span = [](const auto& code) {
    return cpu::CodeSpan{code.data(), code.data() + code.size()};
  };
  program_.nothing = span(shared_.nothing), program_.query = span(shared_.query),
  program_.key = span(shared_.key);
  program_.mask = span(mask_), program_.score = span(score_);
  program_.reads = reads_.data(), program_.read_count = static_cast<int32_t>(reads_.size());
  program_.constants = shared_.constants.data();
  program_.constant_count = static_cast<int32_t>(shared_.constants.size());
}

void TileCode::add_reads(const Expression& score, TileCodeBuilder& builder,
                         std::vector<int>& roots) {
  std::unordered_map<const void*, int64_t> offsets;
  for (const CapturedRead& read : captured_reads(score)) {
    const at::Tensor& tensor = read.read.node().tensor;
    if (!tensor.requires_grad()) continue;
    const int64_t end = gradient_size();
    const auto [offset, is_new] = offsets.try_emplace(tensor.unsafeGetTensorImpl(), end);
    if (is_new) {
      captured_.push_back({tensor.sizes().vec(), tensor.numel(), tensor.scalar_type(), end});
    }
    reads_.push_back({.derivative = {}, .index = {}, .offset = offset->second});
    roots.push_back(builder.lower(read.derivative, Type::kFloat));
    roots.push_back(builder.lower_index(read.read));
  }
}

int64_t TileCode::gradient_size() const {
  return captured_.empty() ? 0 : captured_.back().offset + captured_.back().count;
}

std::shared_ptr<const TileCode> tile_code(const TileCodeOptions& options, TileCode::Pass pass) {
  static Remembered<TileCode> codes;
  std::vector<int64_t> sizes = options.sizes();
  sizes.push_back(static_cast<int64_t>(pass));
  return codes.get({options.mask, options.score}, sizes,
                   [&] { return std::make_shared<const TileCode>(options, pass); });
}

std::vector<at::Tensor> differentiable_tensors(const Expression& score) {
  static Remembered<std::vector<size_t>> known;  // their places among all that it reads
  const std::vector<at::Tensor> all = tensors_of(score);
  const auto places = known.get({score}, {}, [&] {
    const auto made = std::make_shared<std::vector<size_t>>();
    for (const CapturedRead& read : captured_reads(simplify(score))) {
      const at::Tensor& tensor = read.read.node().tensor;
      const auto same = [&](const at::Tensor& one) { return one.is_same(tensor); };
      const size_t place = std::find_if(all.begin(), all.end(), same) - all.begin();
      if (tensor.requires_grad() && !std::count(made->begin(), made->end(), place)) {
        made->push_back(place);
      }
    }
    return std::shared_ptr<const std::vector<size_t>>(made);
  });
  std::vector<at::Tensor> tensors;
  for (const size_t place : *places) tensors.push_back(all.at(place));
  return tensors;
}

namespace {

// Of all trees: a node becomes at most three values, which are numbered in 16 bits.
constexpr int64_t kMostNodes = 20'000;

class Check {
 public:
  Check(const Expression& tree, const TileCodeOptions& options) : bounder_(tree) {
    bounder_.over(options.box());
    look(tree);
  }
  std::string reason;

 private:
  void look(const Expression& part) {
    if (!reason.empty() || !seen_.insert(&part.node()).second) return;
    if (part.type() == Type::kInt && !within(part, -kMost, kMost)) {
      reason = "integer '" + to_text(part) + "' may leave 32 bits (" + range(part) + ")";
    }
    const Node& node = part.node();
    for (size_t i = 0; i < node.operands.size(); ++i) {
      const Expression& operand = node.operands[i];
      const bool index = node.op == Op::kLoad && reason.empty();
      if (index && !within(operand, 0, static_cast<double>(node.tensor.size(i) - 1))) {
        reason = "index '" + to_text(operand) + "' (" + range(operand) + ") may lie outside of '" +
                 node.name + "', which has " + std::to_string(node.tensor.size(i)) +
                 " elements there; hold it with min and max";
      }
      look(operand);
    }
    if (node.op == Op::kLoad && node.tensor.numel() > kMost) {
      reason = "tensor '" + node.name + "' has more than 2^31 elements";
    }
  }

  bool within(const Expression& part, double low, double high) const {
    const Bounds bounds = bounder_.of(part);
    return bounds.low >= low && bounds.high <= high;
  }

  std::string range(const Expression& part) const {
    const Bounds bounds = bounder_.of(part);
    std::ostringstream text;
    text << std::setprecision(12) << bounds.low << " to " << bounds.high;
    return text.str();
  }

  static constexpr int64_t kMost = 2147483647;
  Bounder bounder_;
  std::unordered_set<const Node*> seen_;
};

std::string find_why_not(const TileCodeOptions& options) {
  std::vector<Expression> trees;
  if (options.mask.defined()) trees.push_back(simplify(options.mask));
  if (options.score.defined()) {
    const Expression score = simplify(options.score);
    trees.push_back(score);
    try {
      trees.push_back(derivative(score));
      for (const CapturedRead& read : captured_reads(score)) trees.push_back(read.derivative);
    } catch (const std::invalid_argument& problem) {  // larger than an expression may be
      return std::string("the score's derivative: ") + problem.what();
    }
  }
  int64_t nodes = 0;
  for (const Expression& tree : trees) {
    nodes += tree.node().size;
    if (nodes > kMostNodes) {
      return "the expressions and their derivatives have more than " + std::to_string(kMostNodes) +
             " operations";
    }
    std::string reason = Check(tree, options).reason;
    if (!reason.empty()) return reason;
  }
  return "";
}

}  // namespace

std::string why_no_tile_code(const TileCodeOptions& options) {
  static Remembered<std::string> reasons;
  return *reasons.get({options.mask, options.score}, options.sizes(),
                      [&] { return std::make_shared<const std::string>(find_why_not(options)); });
}

}  // namespace nanoflex::flex
