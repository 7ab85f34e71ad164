// What was made of expressions, kept for as long as they and what their tensors hold stay the same:
// a call of attention asks for the same things as the one before it. Tensors are not kept alive.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "attention/flex/expression.h"

namespace nanoflex::flex {

/// An expression that does not keep its captured tensors alive.
class WeakExpression {
 public:
  WeakExpression() = default;  ///< of the undefined expression
  explicit WeakExpression(const Expression& expression);

  /// Whether a captured tensor, or what held its elements, is gone.
  bool expired() const;
  /// Whether it is of this expression, over these very tensors. None takes the place of one that is
  /// gone, whose memory LibTorch keeps until nothing refers to it weakly.
  bool is_of(const Expression& expression) const;
  /// The expression again. REQUIRES: !expired().
  Expression lock() const;

 private:
  using WeakTensor = c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;
  using WeakStorage = c10::weak_intrusive_ptr<c10::StorageImpl>;

  bool same_tensors(const Expression& form, const Expression& expression) const;

  std::weak_ptr<const Node> identity_;                   // of the expression itself
  Expression form_;                                      // with no tensors
  std::unordered_map<const Node*, WeakTensor> tensors_;  // of the form's loads
  std::vector<WeakStorage> storages_;                    // where their elements lay: see set_data()
};

/// Of each captured tensor, in order of appearance, how often it was written to, whether it wants a
/// gradient, and where and how its elements lie; nothing where writes are not counted (inference
/// tensors).
std::optional<std::vector<int64_t>> tensor_states(const std::vector<Expression>& expressions);

template <typename Value>
class Remembered {
 public:
  /// What `make`, which returns a std::shared_ptr<const Value>, made of these expressions and sizes
  /// before, else makes now. An expression may be undefined. Safe to call from several threads.
  /// REQUIRES: the value does not own the expressions' tensors. What it points to in them is as
  /// good as they are: it is not found once one is gone, and goes itself at the next call.
  template <typename Make>
  std::shared_ptr<const Value> get(const std::vector<Expression>& expressions,
                                   const std::vector<int64_t>& sizes, const Make& make) {
    const auto states = tensor_states(expressions);
    if (!states) return make();
    {
      const std::lock_guard lock(mutex_);
      std::erase_if(entries_, [](const Entry& entry) { return entry.expired(); });
      if (auto found = find(expressions, sizes, *states)) return found;
    }
    const std::vector<WeakExpression> weak(expressions.begin(), expressions.end());
    Entry entry = {weak, sizes, *states, make()};
    const std::lock_guard lock(mutex_);
    if (auto found = find(expressions, sizes, *states))
      return found;  // of two threads that made it, the first one's stays
    entries_.push_front(std::move(entry));
    if (entries_.size() > kMostKept) entries_.pop_back();
    return entries_.front().value;
  }

 private:
  static constexpr size_t kMostKept = 64;

  struct Entry {
    std::vector<WeakExpression> expressions;
    std::vector<int64_t> sizes, states;
    std::shared_ptr<const Value> value;

    bool expired() const {
      return std::any_of(expressions.begin(), expressions.end(),
                         [](const WeakExpression& one) { return one.expired(); });
    }
  };

  // What is found moves to the front: the last one goes first.
  std::shared_ptr<const Value> find(const std::vector<Expression>& expressions,
                                    const std::vector<int64_t>& sizes,
                                    const std::vector<int64_t>& states) {
    const auto same = [](const WeakExpression& a, const Expression& b) { return a.is_of(b); };
    for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
      if (entry->sizes != sizes || entry->states != states ||
          !std::equal(entry->expressions.begin(), entry->expressions.end(), expressions.begin(),
                      expressions.end(), same)) {
        continue;
      }
      std::rotate(entries_.begin(), entry, entry + 1);
      return entries_.front().value;
    }
    return nullptr;
  }

  std::mutex mutex_;
  std::deque<Entry> entries_;  // most recently used first
};

}  // namespace nanoflex::flex
