#include "attention/flex/evaluate.h"

#include <ATen/TensorOperators.h>

#include <stdexcept>
#include <unordered_map>

#include "attention/flex/bounds.h"

namespace nanoflex::flex {
namespace {

[[noreturn]] void reject_evaluation(const std::string& what) {
  throw std::invalid_argument("[expression] " + what);
}

std::string shape_text(const at::Tensor& tensor) {
  std::string text = "[";
  for (const int64_t size : tensor.sizes()) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  }
  return text + "]";
}

// Division by zero gives 0, and -1 is left out because the least integer divided by it overflows.
at::Tensor divide_integers(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor divisor = b.masked_fill((b == 0).logical_or(b == -1), 1);
  const at::Tensor quotient = at::floor_divide(a, divisor);
  return at::where(b == -1, a.neg(), quotient.masked_fill(b == 0, 0));
}

at::Tensor remainder_integers(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor divisor = b.masked_fill((b == 0).logical_or(b == -1), 1);
  return at::remainder(a, divisor).masked_fill(b == 0, 0);
}

// In fp32 at least: half precision has no 2^24.
at::Tensor saturating_floor(const at::Tensor& x) {
  if (!x.is_floating_point()) return x;
  const at::Tensor wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  return wide.floor().nan_to_num(0).clamp(-kLargestFloor, kLargestFloor).to(at::kLong);
}

class Evaluation {
 public:
  explicit Evaluation(const EvaluateOptions& options)
      : options_(options),
        rows_(options.rows.value_or(Range{0, options.T})),
        columns_(options.columns.value_or(Range{0, options.S})),
        batches_(options.batches.value_or(Range{0, options.B})),
        heads_(options.heads.value_or(Range{0, options.H})),
        float_(options.score.defined() ? options.score.scalar_type() : at::kFloat) {}

  // Equal parts of the tree that share a node are computed once.
  at::Tensor value(const Expression& expression) {
    const Node& node = expression.node();
    if (const auto found = done_.find(&node); found != done_.end()) return found->second;
    return done_[&node] = compute(node);
  }

 private:
  at::Tensor compute(const Node& node) {
    switch (node.op) {
      case Op::kBatch:
        return index(batches_).view({-1, 1, 1, 1});
      case Op::kHead:
        return index(heads_).view({1, -1, 1, 1});
      case Op::kQuery: {
        const int64_t offset = options_.S - options_.T;
        return index({rows_.begin + offset, rows_.end + offset}).view({1, 1, -1, 1});
      }
      case Op::kKey:
        return index(columns_).view({1, 1, 1, -1});
      case Op::kScore:
        if (!options_.score.defined()) reject_evaluation("there is no score to read here");
        return options_.score;
      case Op::kConstant:
        // Through fp64: a float beyond fp32 is infinite there, where at::full would refuse it.
        return at::full(
                   {1, 1, 1, 1}, node.constant,
                   node.type == Type::kFloat ? kind(node.type).dtype(at::kDouble) : kind(node.type))
            .to(kind(node.type));
      case Op::kLoad:
        return load(node);
      default:
        return node.operands.size() == 1   ? unary(node)
               : node.operands.size() == 2 ? binary(node)
                                           : choose(node);
    }
  }

  at::TensorOptions kind(Type type) const {
    const at::ScalarType dtype = type == Type::kBool  ? at::kBool
                                 : type == Type::kInt ? at::kLong
                                                      : float_;
    return at::TensorOptions(options_.device).dtype(dtype);
  }

  at::Tensor index(Range range) const {
    return at::arange(range.begin, range.end, kind(Type::kInt));
  }

  // The type is stated because tensors of few elements would else promote by rules of their own.
  at::Tensor value_as(const Expression& expression, Type type) {
    return value(expression).to(kind(type).dtype());
  }

  at::Tensor unary(const Node& node) {
    const at::Tensor x = node.type == Type::kFloat ? value_as(node.operands[0], Type::kFloat)
                                                   : value(node.operands[0]);
    switch (node.op) {
      case Op::kNegate:
        return x.neg();
      case Op::kNot:
        return x.logical_not();
      case Op::kAbs:
        return x.abs();
      case Op::kFloor:
        return saturating_floor(x);
      case Op::kExp:
        return x.exp();
      case Op::kLog:
        return x.log();
      case Op::kSqrt:
        return x.sqrt();
      case Op::kTanh:
        return x.tanh();
      case Op::kSigmoid:
        return x.sigmoid();
      default:
        throw std::logic_error("evaluate: '" + describe(node.op).text + "' is not unary");
    }
  }

  at::Tensor binary(const Node& node) {
    const Expression &left = node.operands[0], &right = node.operands[1];
    const bool real = left.type() == Type::kFloat || right.type() == Type::kFloat;
    const Type type = real ? Type::kFloat : left.type();
    const at::Tensor a = value_as(left, type), b = value_as(right, type);
    switch (node.op) {
      case Op::kAdd:
        return a + b;
      case Op::kSubtract:
        return a - b;
      case Op::kMultiply:
        return a * b;
      case Op::kDivide:
        return real ? a / b : divide_integers(a, b);
      case Op::kRemainder:
        return real ? at::remainder(a, b) : remainder_integers(a, b);
      case Op::kEqual:
        return a == b;
      case Op::kNotEqual:
        return a != b;
      case Op::kLess:
        return a < b;
      case Op::kLessEqual:
        return a <= b;
      case Op::kGreater:
        return a > b;
      case Op::kGreaterEqual:
        return a >= b;
      case Op::kAnd:
        return a.logical_and(b);
      case Op::kOr:
        return a.logical_or(b);
      case Op::kMin:
        return at::minimum(a, b);
      case Op::kMax:
        return at::maximum(a, b);
      default:
        throw std::logic_error("evaluate: '" + describe(node.op).text + "' is not binary");
    }
  }

  at::Tensor choose(const Node& node) {
    return at::where(value(node.operands[0]), value_as(node.operands[1], node.type),
                     value_as(node.operands[2], node.type));
  }

  at::Tensor load(const Node& node) {
    const at::Tensor& tensor = node.tensor;
    if (!tensor.defined())
      reject_evaluation("tensor '" + node.name + "' is not bound; bind() it before use");
    if (tensor.dim() != static_cast<int64_t>(node.operands.size())) {
      reject_evaluation("tensor '" + node.name + "' " + shape_text(tensor) + " is indexed by " +
                        std::to_string(node.operands.size()) + " values");
    }
    if (tensor.device() != options_.device) {
      reject_evaluation("tensor '" + node.name + "' is on " + tensor.device().str() +
                        ", must be on " + options_.device.str());
    }
    const at::Tensor values = tensor.to(kind(node.type).dtype());
    if (tensor.dim() == 0) return values.view({1, 1, 1, 1});
    c10::List<std::optional<at::Tensor>> indices;
    for (size_t i = 0; i < node.operands.size(); ++i) {
      indices.push_back(checked_index(node, static_cast<int64_t>(i)));
    }
    return at::index(values, indices);
  }

  at::Tensor checked_index(const Node& node, int64_t dimension) {
    const Expression& expression = node.operands[dimension];
    const at::Tensor index = value(expression);
    const int64_t size = node.tensor.size(dimension);
    if (surely_within(expression, size)) return index;
    const int64_t least = index.min().item<int64_t>(), most = index.max().item<int64_t>();
    if (least >= 0 && most < size) return index;
    reject_evaluation("tensor '" + node.name + "' " + shape_text(node.tensor) + " is read at " +
                      std::to_string(least < 0 ? least : most) + " in dimension " +
                      std::to_string(dimension) + " (index '" + to_text(expression) +
                      "'); use 0 to " + std::to_string(size - 1));
  }

  // Without a look at the values, for which the host would wait for a GPU.
  bool surely_within(const Expression& index, int64_t size) const {
    if (has_operator(index, Op::kLoad)) return false;
    const int64_t offset = options_.S - options_.T;
    const Bounds bounds = Bounder(index).over({.b_low = batches_.begin,
                                               .b_high = batches_.end - 1,
                                               .h_low = heads_.begin,
                                               .h_high = heads_.end - 1,
                                               .q_low = rows_.begin + offset,
                                               .q_high = rows_.end + offset - 1,
                                               .kv_low = columns_.begin,
                                               .kv_high = columns_.end - 1});
    return bounds.low >= 0 && bounds.high < static_cast<double>(size);
  }

  const EvaluateOptions& options_;
  const Range rows_, columns_, batches_, heads_;
  const at::ScalarType float_;
  std::unordered_map<const Node*, at::Tensor> done_;
};

}  // namespace

at::Tensor evaluate(const Expression& expression, const EvaluateOptions& options) {
  return Evaluation(options).value(expression);
}

}  // namespace nanoflex::flex
