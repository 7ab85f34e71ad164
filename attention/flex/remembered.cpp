#include "attention/flex/remembered.h"

namespace nanoflex::flex {
namespace {

// False where writes are not counted.
bool collect_states(const Expression& expression, std::vector<int64_t>& states) {
  const Node& node = expression.node();
  if (node.tensor.defined()) {
    if (node.tensor.is_inference()) return false;
    states.push_back(2 * node.tensor._version() + (node.tensor.requires_grad() ? 1 : 0));
    // set_data() changes these, and is not counted.
    const void* data = node.tensor.has_storage() ? node.tensor.const_data_ptr() : nullptr;
    states.push_back(reinterpret_cast<int64_t>(data));
    for (const at::IntArrayRef list : {node.tensor.sizes(), node.tensor.strides()}) {
      states.insert(states.end(), list.begin(), list.end());
    }
  }
  return std::all_of(node.operands.begin(), node.operands.end(),
                     [&](const Expression& operand) { return collect_states(operand, states); });
}

}  // namespace

WeakExpression::WeakExpression(const Expression& expression) {
  if (!expression.defined()) return;
  identity_ = expression.identity();
  Replaced done;
  form_ = with_tensors(
      expression, [](const Node&) { return at::Tensor(); }, done);
  for (const auto& [node, replaced] : done) {
    if (!node->tensor.defined()) continue;
    tensors_.emplace(&replaced.node(), WeakTensor(node->tensor.getIntrusivePtr()));
    if (node->tensor.has_storage()) {
      storages_.push_back(node->tensor.storage().getWeakStorageImpl());
    }
  }
}

bool WeakExpression::expired() const {
  return std::any_of(tensors_.begin(), tensors_.end(),
                     [](const auto& known) { return known.second.expired(); }) ||
         std::any_of(storages_.begin(), storages_.end(),
                     [](const WeakStorage& storage) { return storage.expired(); });
}

bool WeakExpression::is_of(const Expression& expression) const {
  const auto itself = identity_.lock();
  if (itself && expression.defined() && itself.get() == &expression.node()) return true;
  if (!same_form(form_, expression)) return false;
  return !form_.defined() || same_tensors(form_, expression);
}

bool WeakExpression::same_tensors(const Expression& form, const Expression& expression) const {
  const Node &x = form.node(), &y = expression.node();
  if (&x == &y) return true;  // a part without tensors, which is shared
  const auto known = tensors_.find(&x);
  const c10::TensorImpl* mine =
      known == tensors_.end() ? nullptr : known->second._unsafe_get_target();
  if (mine != (y.tensor.defined() ? y.tensor.unsafeGetTensorImpl() : nullptr)) return false;
  return std::equal(x.operands.begin(), x.operands.end(), y.operands.begin(), y.operands.end(),
                    [&](const auto& a, const auto& b) { return same_tensors(a, b); });
}

Expression WeakExpression::lock() const {
  if (tensors_.empty()) return form_;
  Replaced done;
  const auto tensor_of = [&](const Node& load) {
    const auto known = tensors_.find(&load);
    return known == tensors_.end() ? at::Tensor() : at::Tensor(known->second.lock());
  };
  return with_tensors(form_, tensor_of, done);
}

std::optional<std::vector<int64_t>> tensor_states(const std::vector<Expression>& expressions) {
  std::vector<int64_t> states;
  for (const Expression& expression : expressions) {
    if (expression.defined() && !collect_states(expression, states)) return std::nullopt;
  }
  return states;
}

}  // namespace nanoflex::flex
