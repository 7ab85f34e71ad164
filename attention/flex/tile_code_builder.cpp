#include "attention/flex/tile_code_builder.h"

#include <algorithm>
#include <limits>
#include <set>
#include <stdexcept>

#include "attention/flex/operators.h"

namespace nanoflex::flex {
namespace {

using cpu::Code;
using cpu::Value;
using cpu::Vary;

constexpr double kMostExact = 16777216;  // 2^24: up to here fp32 holds every integer
constexpr int kUnused = -1, kForever = std::numeric_limits<int>::max();

// What is lowered is small enough for this: see why_no_tile_code().
uint16_t slot_of(int32_t number) {
  if (number > std::numeric_limits<uint16_t>::max()) throw std::length_error("tile code: too long");
  return static_cast<uint16_t>(number);
}

Vary either(Vary a, Vary b) {
  if (a == b || b == Vary::kNothing) return a;
  return a == Vary::kNothing ? b : Vary::kPair;
}

// Operators that have an instruction for integers and one for floats.
struct Codes {
  Code integers, floats;
  bool exchange = false;  // its operands
};

std::optional<Codes> codes_of(Op op) {
  switch (op) {
    case Op::kNegate:
      return Codes{Code::kIntNegate, Code::kNegate};
    case Op::kAbs:
      return Codes{Code::kIntAbs, Code::kAbs};
    case Op::kAdd:
      return Codes{Code::kIntAdd, Code::kAdd};
    case Op::kSubtract:
      return Codes{Code::kIntSubtract, Code::kSubtract};
    case Op::kMultiply:
      return Codes{Code::kIntMultiply, Code::kMultiply};
    case Op::kDivide:
      return Codes{Code::kIntDivide, Code::kDivide};
    case Op::kRemainder:
      return Codes{Code::kIntRemainder, Code::kRemainder};
    case Op::kMin:
      return Codes{Code::kIntMin, Code::kMin};
    case Op::kMax:
      return Codes{Code::kIntMax, Code::kMax};
    case Op::kEqual:
      return Codes{Code::kIntEqual, Code::kEqual};
    case Op::kNotEqual:
      return Codes{Code::kIntNotEqual, Code::kNotEqual};
    case Op::kLess:
      return Codes{Code::kIntLess, Code::kLess};
    case Op::kLessEqual:
      return Codes{Code::kIntLessEqual, Code::kLessEqual};
    case Op::kGreater:
      return Codes{Code::kIntLess, Code::kLess, true};
    case Op::kGreaterEqual:
      return Codes{Code::kIntLessEqual, Code::kLessEqual, true};
    default:
      return std::nullopt;
  }
}

Code real_code(Op op) {
  switch (op) {
    case Op::kExp:
      return Code::kExp;
    case Op::kLog:
      return Code::kLog;
    case Op::kSqrt:
      return Code::kSqrt;
    case Op::kSigmoid:
      return Code::kSigmoid;
    case Op::kFloor:
      return Code::kFloor;
    default:
      throw std::logic_error("tile code: no instruction for '" + describe(op).text + "'");
  }
}

// Whether a float's last bits may decide what the tree is: what is compared, or cut to an integer.
bool decides(const Expression& tree) {
  bool found = false;
  for_each_node(tree, [&](const Expression& part) {
    const Node& node = part.node();
    const Rule rule = describe(node.op).rule;
    const bool cuts = rule == Rule::kCompare || rule == Rule::kInteger || node.op == Op::kRemainder;
    const auto is_float = [](const Expression& one) { return one.type() == Type::kFloat; };
    found |= cuts && std::any_of(node.operands.begin(), node.operands.end(), is_float);
  });
  return found;
}

}  // namespace

TileCodeBuilder::TileCodeBuilder(const Box& box, bool forward) : box_(box), forward_(forward) {}

int TileCodeBuilder::lower(const Expression& expression, Type type) {
  begin(expression);
  return as_pair(value_as(expression, type));
}

int TileCodeBuilder::lower_index(const Expression& read) {
  begin(read);
  return flat_index(read.node());
}

// Bounds are of one tree at a time.
void TileCodeBuilder::begin(const Expression& tree) {
  lowered_.clear();
  bounder_.emplace(tree);
  bounder_->over(box_);
  // At a boundary nothing may differ from what blocks and indices were judged by: there every
  // operation is rounded, as it is on whole tensors.
  may_fuse_ = tree.type() == Type::kFloat && !decides(tree);
}

int TileCodeBuilder::number(const Entry& entry) {
  const auto [at, is_new] = numbers_.try_emplace(entry, static_cast<int>(entries_.size()));
  if (is_new) entries_.push_back(entry);
  return at->second;
}

int TileCodeBuilder::operation(Code code, const std::vector<int>& operands, const float* table) {
  Vary vary = Vary::kNothing;
  for (const int operand : operands) vary = either(vary, entries_[operand].vary);
  return number({.vary = vary, .code = code, .operands = operands, .table = table});
}

int TileCodeBuilder::constant(int32_t bits) {
  return number({.leaf = kConstant, .constant = bits});
}

int TileCodeBuilder::constant(float value) { return constant(__builtin_bit_cast(int32_t, value)); }

int TileCodeBuilder::as_pair(int id) {
  if (entries_[id].vary == Vary::kPair) return id;
  return number({.vary = Vary::kPair, .code = Code::kCopy, .operands = {id}});
}

int TileCodeBuilder::value(const Expression& expression) {
  const Node& node = expression.node();
  if (const auto found = lowered_.find(&node); found != lowered_.end()) return found->second;
  const int id = compute(node);
  lowered_[&node] = id;
  return id;
}

int TileCodeBuilder::value_as(const Expression& expression, Type type) {
  return type == Type::kFloat && expression.type() == Type::kInt ? as_float(expression)
                                                                 : value(expression);
}

bool TileCodeBuilder::exact_in_float(const Expression& integer) const {
  const Bounds bounds = bounder_->of(integer);
  return bounds.low >= -kMostExact && bounds.high <= kMostExact;
}

// Converts as near to the leaves as changes nothing: there values vary with less than the pair. An
// integer's zero has no sign; a float's product with a negative number may have.
int TileCodeBuilder::as_float(const Expression& integer) {
  const Node& node = integer.node();
  if (node.op == Op::kConstant) return constant(static_cast<float>(node.constant.toLong()));
  const auto exact = [&](const Expression& part) { return exact_in_float(part); };
  const auto from_zero_on = [&](const Expression& part) { return bounder_->of(part).low >= 0; };
  const Bounds bounds = bounder_->of(integer);
  const bool simple =
      node.op == Op::kAdd || node.op == Op::kSubtract ||
      (node.op == Op::kMultiply &&
       std::all_of(node.operands.begin(), node.operands.end(), from_zero_on)) ||
      ((node.op == Op::kMultiply || node.op == Op::kNegate) && (bounds.low > 0 || bounds.high < 0));
  if (simple && exact(integer) && std::all_of(node.operands.begin(), node.operands.end(), exact)) {
    std::vector<int> operands;
    for (const Expression& operand : node.operands) operands.push_back(as_float(operand));
    return operation(codes_of(node.op)->floats, operands);
  }
  return operation(Code::kToFloat, {value(integer)});
}

int TileCodeBuilder::compute(const Node& node) {
  switch (node.op) {
    case Op::kBatch:
      return number({.leaf = kBatch});
    case Op::kHead:
      return number({.leaf = kHead});
    case Op::kQuery:
      return number({.leaf = kPosition, .vary = Vary::kQuery});
    case Op::kKey:
      return number({.leaf = kPosition, .vary = Vary::kKey});
    case Op::kScore:
      return operation(Code::kMultiply,
                       {number({.leaf = kProduct, .vary = Vary::kPair}), number({.leaf = kScale})});
    case Op::kConstant:
      if (node.type == Type::kBool) return constant(node.constant.toBool() ? -1 : 0);
      return node.type == Type::kInt ? constant(static_cast<int32_t>(node.constant.toLong()))
                                     : constant(static_cast<float>(node.constant.toDouble()));
    case Op::kLoad:
      return load(node);
    case Op::kNot:
      return operation(Code::kNot, {value(node.operands[0])});
    case Op::kAnd:
    case Op::kOr:
      return operation(node.op == Op::kAnd ? Code::kAnd : Code::kOr,
                       {value(node.operands[0]), value(node.operands[1])});
    case Op::kSelect:
      return operation(Code::kSelect,
                       {value(node.operands[0]), value_as(node.operands[1], node.type),
                        value_as(node.operands[2], node.type)});
    default:
      return compute_arithmetic(node);
  }
}

int TileCodeBuilder::compute_arithmetic(const Node& node) {
  const auto codes = codes_of(node.op);
  if (node.op == Op::kTanh) return tanh(value_as(node.operands[0], Type::kFloat));
  if (!codes) return operation(real_code(node.op), {value_as(node.operands[0], Type::kFloat)});
  bool real = false;
  for (const Expression& operand : node.operands) real |= operand.type() == Type::kFloat;
  std::vector<int> operands;
  for (const Expression& operand : node.operands) {
    operands.push_back(value_as(operand, real ? Type::kFloat : Type::kInt));
  }
  if (codes->exchange) std::swap(operands[0], operands[1]);
  if (node.op == Op::kDivide && real && may_fuse_) {
    if (const auto product = divide_by_constant(operands[0], operands[1])) return *product;
  }
  if (node.op == Op::kMultiply && real) return multiply(operands[0], operands[1]);
  if (node.op == Op::kAdd && real && may_fuse_) {
    if (const auto fused = multiply_add(operands[0], operands[1])) return *fused;
    if (const auto fused = multiply_add(operands[1], operands[0])) return *fused;
  }
  return operation(real ? codes->floats : codes->integers, operands);
}

int TileCodeBuilder::flat_index(const Node& load) {
  int index = constant(int32_t{0});
  int64_t stride = 1;
  for (int64_t dimension = load.tensor.dim() - 1; dimension >= 0; --dimension) {
    int part = value(load.operands[dimension]);
    if (stride != 1) {
      part = operation(Code::kIntMultiply, {part, constant(static_cast<int32_t>(stride))});
    }
    index = stride == 1 ? part : operation(Code::kIntAdd, {part, index});
    stride *= load.tensor.size(dimension);
  }
  return index;
}

int TileCodeBuilder::load(const Node& node) {
  const int index = flat_index(node);
  return operation(Code::kLoad, {index}, table(node));
}

// The tensor's elements as the kernels read them: row by row, 32 bits each. A tensor that lies so
// is not held, for code is remembered for longer than it.
const float* TileCodeBuilder::table(const Node& load) {
  const float*& known = tables_[load.tensor.unsafeGetTensorImpl()];
  if (known) return known;
  const at::Tensor values = load.tensor.detach();
  const at::Tensor numbers = load.type == Type::kFloat  ? values.to(at::kFloat)
                             : load.type == Type::kBool ? values.to(at::kInt).neg()
                                                        : values.to(at::kInt);
  const at::Tensor table = numbers.contiguous();
  if (!table.is_alias_of(values)) shared_.tables.push_back(table);
  return known = static_cast<const float*>(table.const_data_ptr());
}

cpu::Instruction TileCodeBuilder::instruction(int id) const {
  const Entry& entry = entries_[id];
  cpu::Instruction result{.code = entry.code, .out = {}, .table = entry.table};
  if (const auto place = places_.find(id); place != places_.end()) result.out = place->second;
  for (size_t i = 0; i < entry.operands.size(); ++i) {
    result.operands[i] = places_.at(entry.operands[i]);
  }
  return result;
}

// Of all that these values are made of: after which value each is used no more.
std::vector<int> TileCodeBuilder::last_uses(const std::vector<int>& roots) const {
  std::vector<int> last(entries_.size(), kUnused);
  for (const int root : roots) last[root] = kForever;
  for (int id = static_cast<int>(entries_.size()) - 1; id >= 0; --id) {
    if (last[id] == kUnused) continue;
    for (const int operand : entries_[id].operands) last[operand] = std::max(last[operand], id);
  }
  return last;
}

// Values that vary with less than the pair keep a slot of their own.
void TileCodeBuilder::place_small(int id) {
  const Entry& entry = entries_[id];
  if (places_.count(id)) return;
  int32_t& slots = shared_.slots[static_cast<int>(entry.vary)];
  Value place = {entry.vary, slot_of(slots)};
  if (entry.leaf == kBatch || entry.leaf == kHead) {
    place.slot = entry.leaf == kBatch ? cpu::kBatchSlot : cpu::kHeadSlot;
  } else if (entry.leaf == kScale) {
    place.slot = cpu::kScaleSlot;
  } else if (entry.leaf == kPosition) {
    place.slot = cpu::kPositionSlot;
  } else {
    ++slots;
  }
  places_[id] = place;
  auto& code = entry.vary == Vary::kNothing ? shared_.nothing
               : entry.vary == Vary::kQuery ? shared_.query
                                            : shared_.key;
  if (entry.leaf == kConstant) {
    shared_.constants.push_back({place.slot, entry.constant});
  } else if (entry.leaf == kNone) {
    code.push_back(instruction(id));
  }
}

std::vector<Value> TileCodeBuilder::emit(const std::vector<int>& roots,
                                         std::vector<cpu::Instruction>& code) {
  return emit(roots, code, kUnused);
}

std::vector<Value> TileCodeBuilder::emit_score(const std::vector<int>& roots,
                                               std::vector<cpu::Instruction>& code) {
  const Value score = {Vary::kPair, cpu::kScoreSlot};
  const int changed = roots[0];
  // At once, unless q k^T is read later, or the value too, where something else will lie.
  const int product = number({.leaf = kProduct, .vary = Vary::kPair});
  const bool again = std::count(roots.begin(), roots.end(), changed) > 1;
  const bool at_once = !again && last_uses(roots)[product] <= changed;
  std::vector<Value> results = emit(roots, code, at_once ? changed : kUnused);
  if (!at_once) code.push_back({.code = Code::kCopy, .out = score, .operands = {results[0]}});
  results[0] = score;
  return results;
}

// `in_place`: the value that takes the score's place, if any.
std::vector<Value> TileCodeBuilder::emit(const std::vector<int>& roots,
                                         std::vector<cpu::Instruction>& code, int in_place) {
  const std::vector<int> last = last_uses(roots);
  int32_t& slots = shared_.slots[static_cast<int>(Vary::kPair)];
  int32_t used = 1;
  std::vector<uint16_t> free;
  for (int id = 0; id < static_cast<int>(entries_.size()); ++id) {
    if (last[id] == kUnused) continue;
    const Entry& entry = entries_[id];
    if (entry.vary != Vary::kPair) {
      place_small(id);
      continue;
    }
    if (entry.leaf == kProduct) {
      places_[id] = {Vary::kPair, cpu::kScoreSlot};
      continue;
    }
    cpu::Instruction made = instruction(id);
    const std::set<int> operands(entry.operands.begin(), entry.operands.end());
    for (const int operand : operands) {  // an instruction may write over what it reads
      const bool done = last[operand] == id && entries_[operand].vary == Vary::kPair;
      const Value place = done ? places_[operand] : Value{};
      if (done && place.slot != cpu::kScoreSlot) free.push_back(place.slot);
    }
    if (id == in_place) {
      made.out = places_[id] = {Vary::kPair, cpu::kScoreSlot};
    } else {
      if (free.empty()) free.push_back(slot_of(used++));
      made.out = places_[id] = {Vary::kPair, free.back()};
      free.pop_back();
    }
    code.push_back(made);
  }
  slots = std::max(slots, used);
  std::vector<Value> results;
  for (const int root : roots) results.push_back(places_.at(root));
  return results;
}

}  // namespace nanoflex::flex
