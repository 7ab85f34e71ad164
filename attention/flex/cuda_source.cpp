#include "attention/flex/cuda_source.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <unordered_map>
#include <unordered_set>

#include "attention/flex/derivative.h"
#include "attention/flex/hidden_constants.h"
#include "attention/flex/remembered.h"
#include "attention/flex/simplify.h"

namespace nanoflex::flex {
namespace {

std::string type_text(Type type) {
  return type == Type::kBool ? "bool" : type == Type::kInt ? "int" : "float";
}

// An operator's function in cuda/program.cuh or, where C++ has one, its symbol between spaces.
std::string function_of(Op op) {
  switch (op) {
    case Op::kNegate:
      return "negate";
    case Op::kAbs:
      return "absolute";
    case Op::kFloor:
      return "floor_of";
    case Op::kExp:
      return "exp_of";
    case Op::kLog:
      return "log_of";
    case Op::kSqrt:
      return "sqrt_of";
    case Op::kTanh:
      return "tanh_of";
    case Op::kSigmoid:
      return "sigmoid_of";
    case Op::kAdd:
      return "add";
    case Op::kSubtract:
      return "subtract";
    case Op::kMultiply:
      return "multiply";
    case Op::kDivide:
      return "divide";
    case Op::kRemainder:
      return "remainder";
    case Op::kMin:
      return "minimum";
    case Op::kMax:
      return "maximum";
    default:
      throw std::logic_error("cuda source: no function for '" + describe(op).text + "'");
  }
}

// A source whose tensors are places among those that mask and score read: it keeps none alive.
struct Recipe {
  struct Read {
    size_t place;
    at::ScalarType type;  // that the kernels read
  };
  std::string text;
  std::vector<int32_t> words;
  std::vector<Read> reads;
};

std::vector<at::Tensor> tensors_of(const Expression& mask, const Expression& score) {
  std::vector<at::Tensor> tensors;
  for (const Expression& one : {mask, score}) {
    if (!one.defined()) continue;
    const std::vector<at::Tensor> read = flex::tensors_of(one);
    tensors.insert(tensors.end(), read.begin(), read.end());
  }
  return tensors;
}

// The arguments that all functions of a program share.
struct CudaArguments {
  struct Table {
    size_t index;
    std::vector<std::string> strides;  // of all dimensions but the last
  };
  Recipe& recipe;
  const std::vector<at::Tensor> tensors;
  std::unordered_map<const void*, Table> tables = {};

  // Every place of a constant gets a word of its own: what constants are equal changes no text.
  std::string word(int32_t bits) {
    recipe.words.push_back(bits);
    return "arguments.words[" + std::to_string(recipe.words.size() - 1) + "]";
  }

  const Table& table(const Node& load) {
    const auto [place, is_new] = tables.try_emplace(load.tensor.unsafeGetTensorImpl());
    Table& table = place->second;
    if (!is_new) return table;
    const auto same = [&](const at::Tensor& one) { return one.is_same(load.tensor); };
    const auto found = std::find_if(tensors.begin(), tensors.end(), same);
    if (found == tensors.end()) throw std::logic_error("cuda source: a tensor of nowhere");
    table.index = recipe.reads.size();
    recipe.reads.push_back({static_cast<size_t>(found - tensors.begin()),
                            load.type == Type::kFloat ? at::kFloat : at::kInt});
    for (int64_t i = 0; i + 1 < load.tensor.dim(); ++i) {
      int64_t stride = 1;
      for (int64_t j = i + 1; j < load.tensor.dim(); ++j) stride *= load.tensor.size(j);
      table.strides.push_back(word(static_cast<int32_t>(stride)));
    }
    return table;
  }
};

// Statements of one function: a numbered local for every operation, operands first. All of them
// run, whatever select and & decide: none can fail, and threads that go together branch nowhere.
class Body {
 public:
  explicit Body(CudaArguments& arguments) : arguments_(arguments) {}

  std::string value(const Expression& expression, Type type) {
    const std::string plain = value(expression);
    return type == Type::kFloat && expression.type() == Type::kInt ? "to_number(" + plain + ")"
                                                                   : plain;
  }
  std::string text() const { return text_.str(); }

 private:
  std::string value(const Expression& expression) {
    const Node& node = expression.node();
    if (node.op == Op::kConstant) return constant(node, node.constant);
    if (is_hidden_constant(node)) return constant(node, node.tensor.item());
    if (node.operands.empty() && node.op != Op::kLoad) {
      return node.op == Op::kScore ? "s" : describe(node.op).text;
    }
    const auto found = names_.find(&node);
    if (found != names_.end()) return found->second;
    const std::string made = operation(node), name = "v" + std::to_string(names_.size());
    text_ << "    const " << type_text(node.type) << " " << name << " = " << made << ";\n";
    return names_[&node] = name;
  }

  std::string constant(const Node& node, const at::Scalar& value) {
    if (node.type == Type::kBool) return value.toBool() ? "true" : "false";
    if (node.type == Type::kInt) return arguments_.word(static_cast<int32_t>(value.toLong()));
    const auto single = static_cast<float>(value.toDouble());
    return "number(" + arguments_.word(std::bit_cast<int32_t>(single)) + ")";
  }

  std::string operation(const Node& node) {
    const auto& operands = node.operands;
    switch (node.op) {
      case Op::kLoad:
        return load(node);
      case Op::kNot:
        return "!" + value(operands[0]);
      case Op::kSelect: {
        const std::string condition = value(operands[0]), yes = value(operands[1], node.type);
        return condition + " ? " + yes + " : " + value(operands[2], node.type);
      }
      default:
        break;
    }
    Type type = node.type;
    if (describe(node.op).rule != Rule::kReal) {
      type = Type::kInt;
      for (const Expression& operand : operands) {
        if (operand.type() != Type::kInt) type = operand.type();
      }
    }
    return call(node, type);
  }

  // All operands as `type`.
  std::string call(const Node& node, Type type) {
    const std::string first = value(node.operands[0], type);
    if (node.operands.size() == 1) return function_of(node.op) + "(" + first + ")";
    const std::string second = value(node.operands[1], type);
    const Rule rule = describe(node.op).rule;
    if (rule == Rule::kCompare) return first + " " + describe(node.op).text + " " + second;
    if (rule == Rule::kLogic) return first + (node.op == Op::kAnd ? " && " : " || ") + second;
    return function_of(node.op) + "(" + first + ", " + second + ")";
  }

  std::string load(const Node& node) {
    const CudaArguments::Table table = arguments_.table(node);
    std::string index = "0";
    for (size_t i = 0; i < node.operands.size(); ++i) {
      std::string part = value(node.operands[i]);
      if (i < table.strides.size()) part = "multiply(" + part + ", " + table.strides[i] + ")";
      index = i == 0 ? part : "add(" + index + ", " + part + ")";
    }
    const std::string place =
        "arguments.tensors[" + std::to_string(table.index) + "], " + index + ")";
    if (node.type == Type::kFloat) return "load_number(" + place;
    return "load_integer(" + place + (node.type == Type::kBool ? " != 0" : "");
  }

  CudaArguments& arguments_;
  std::ostringstream text_;
  std::unordered_map<const Node*, std::string> names_;
};

std::string function(const std::string& head, const std::string& body, const std::string& result) {
  return "  __device__ __forceinline__ " + head + " const {\n" + body + "    return " + result +
         ";\n  }\n";
}

std::string mask_function(const Expression& mask, CudaArguments& arguments) {
  Body body(arguments);
  const std::string result = body.value(simplify(mask), Type::kBool);
  return function("bool mask(int b, int h, int q, int kv)", body.text(), result);
}

// The score and its derivative, in which equal parts are shared. What float constants are
// decides nothing.
std::vector<Expression> score_and_derivative(const Expression& score) {
  const Expression hidden = hide_constants(score);
  return simplify_together({hidden, derivative(hidden)});
}

// The changed score alone, and with its derivative: the operations that both need are the same.
std::string score_functions(const Expression& score, CudaArguments& arguments) {
  const std::vector<Expression> both = score_and_derivative(score);
  Body alone(arguments), with_derivative(arguments);
  const std::string head = "float score(float s, int b, int h, int q, int kv";
  const std::string result = alone.value(both[0], Type::kFloat);
  std::string text = function(head + ")", alone.text(), result);
  const std::string changed = with_derivative.value(both[0], Type::kFloat);
  const std::string slope = with_derivative.value(both[1], Type::kFloat);
  return text + function(head + ", float& derivative)",
                         with_derivative.text() + "    derivative = " + slope + ";\n", changed);
}

// Arrays of no elements are not C++.
size_t at_least_one(size_t size) { return size == 0 ? 1 : size; }

Recipe make_recipe(const Expression& mask, const Expression& score) {
  Recipe recipe;
  CudaArguments arguments{recipe, tensors_of(mask, score)};
  std::string functions;
  if (mask.defined()) functions += mask_function(mask, arguments);
  if (score.defined()) functions += score_functions(score, arguments);
  const auto truth = [](bool value) { return std::string(value ? "true" : "false"); };
  recipe.text =
      "struct FlexProgram {\n  static constexpr bool kHasMask = " + truth(mask.defined()) +
      ", kHasScore = " + truth(score.defined()) + ";\n  using Arguments = ProgramArguments<" +
      std::to_string(at_least_one(recipe.reads.size())) + ", " +
      std::to_string(at_least_one(recipe.words.size())) +
      ">;\n  const Arguments& arguments;\n"
      "  __device__ __forceinline__ const BlockKinds& blocks() const { return "
      "arguments.blocks; }\n" +
      functions + "};\n";
  return recipe;
}

}  // namespace

CudaSource cuda_source(const Expression& mask, const Expression& score) {
  if (!mask.defined() && !score.defined()) return {};
  static Remembered<Recipe> recipes;
  const auto recipe = recipes.get(
      {mask, score}, {}, [&] { return std::make_shared<const Recipe>(make_recipe(mask, score)); });
  CudaSource source = {.text = recipe->text, .words = recipe->words, .tensors = {}};
  const std::vector<at::Tensor> tensors = tensors_of(mask, score);
  for (const auto& [place, type] : recipe->reads) {
    source.tensors.push_back(tensors[place].detach().to(type).contiguous());
  }
  return source;
}

std::vector<char> CudaSource::arguments(const cuda::BlockKinds& blocks) const {
  const size_t pointers = at_least_one(tensors.size()) * sizeof(void*);
  const size_t word_bytes = at_least_one(words.size()) * sizeof(int32_t);
  static_assert(sizeof(blocks) % sizeof(void*) == 0);
  std::vector<char> bytes((sizeof(blocks) + pointers + word_bytes + 7) / 8 * 8);
  std::memcpy(bytes.data(), &blocks, sizeof(blocks));
  for (size_t i = 0; i < tensors.size(); ++i) {
    const void* pointer = tensors[i].const_data_ptr();
    std::memcpy(bytes.data() + sizeof(blocks) + i * sizeof(void*), &pointer, sizeof(void*));
  }
  if (!words.empty()) {
    std::memcpy(bytes.data() + sizeof(blocks) + pointers, words.data(),
                words.size() * sizeof(int32_t));
  }
  return bytes;
}

namespace {

// Kernels take 4 KB of parameters, their own included; every operation is compiled for each of a
// lane's up to 64 pairs.
constexpr size_t kMostArgumentBytes = 3072;
constexpr int64_t kMostOperations = 1000;

// Looks at every node once.
struct Survey {
  at::Device device;
  std::unordered_set<const Node*> seen = {};
  size_t argument_bytes = 0;
  int64_t operations = 0;
  std::string foreign = {};

  void look(const Expression& part) {
    const Node& node = part.node();
    if (!seen.insert(&node).second) return;
    if (!node.operands.empty()) ++operations;
    for (const Expression& operand : node.operands) {
      const bool constant =
          operand.node().op == Op::kConstant || is_hidden_constant(operand.node());
      if (constant) argument_bytes += sizeof(int32_t);
      look(operand);
    }
    if (node.op != Op::kLoad || is_hidden_constant(node)) return;
    argument_bytes += sizeof(void*) + node.operands.size() * sizeof(int32_t);
    if (node.tensor.device() != device) {
      foreign = "tensor '" + node.name + "' is on " + node.tensor.device().str() + ", must be on " +
                device.str();
    }
  }
};

std::string find_why_not(const Expression& mask, const Expression& score, at::Device device) {
  Survey survey{device};
  if (mask.defined()) survey.look(simplify(mask));
  if (score.defined()) {
    // The score itself is printed twice.
    const std::vector<Expression> both = score_and_derivative(score);
    survey.look(both[0]);
    survey.argument_bytes *= 2;
    survey.look(both[1]);
  }
  if (!survey.foreign.empty()) return survey.foreign;
  if (survey.operations > kMostOperations) {
    return "the expressions have more than " + std::to_string(kMostOperations) + " operations";
  }
  if (survey.argument_bytes > kMostArgumentBytes) {
    return "the expressions have more constants and tensors than a CUDA kernel takes";
  }
  return "";
}

}  // namespace

std::string why_no_cuda_source(const Expression& mask, const Expression& score, at::Device device) {
  static Remembered<std::string> reasons;
  return *reasons.get({mask, score}, {static_cast<int64_t>(device.type()), device.index()}, [&] {
    return std::make_shared<const std::string>(find_why_not(mask, score, device));
  });
}

}  // namespace nanoflex::flex
