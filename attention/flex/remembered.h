// What was made of expressions, kept for as long as they and what their tensors hold stay the same:
// a call of attention asks for the same things as the one before it.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "attention/flex/expression.h"

namespace nanoflex::flex {

/// Of each captured tensor, in order of appearance, how often it was written to and whether it
/// wants a gradient; nothing where writes are not counted (inference tensors).
std::optional<std::vector<int64_t>> tensor_states(const std::vector<Expression>& expressions);

template <typename Value>
class Remembered {
 public:
  /// What `make`, which returns a std::shared_ptr<const Value>, made of these expressions and sizes
  /// before, else makes now. An expression may be undefined. Safe to call from several threads.
  template <typename Make>
  std::shared_ptr<const Value> get(std::vector<Expression> expressions, std::vector<int64_t> sizes,
                                   const Make& make) {
    auto states = tensor_states(expressions);
    if (!states) return make();
    Entry entry = {std::move(expressions), std::move(sizes), std::move(*states), nullptr};
    {
      const std::lock_guard lock(mutex_);
      if (auto found = find(entry)) return found;
    }
    entry.value = make();
    const std::lock_guard lock(mutex_);
    if (auto found = find(entry))
      return found;  // of two threads that made it, the first one's stays
    entries_.push_front(std::move(entry));
    if (entries_.size() > kMostKept) entries_.pop_back();
    return entries_.front().value;
  }

 private:
  static constexpr size_t kMostKept = 64;

  struct Entry {
    std::vector<Expression> expressions;  // hold their tensors, so that no other takes its identity
    std::vector<int64_t> sizes, states;
    std::shared_ptr<const Value> value;
  };

  // What is found moves to the front: the last one goes first.
  std::shared_ptr<const Value> find(const Entry& wanted) {
    for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
      if (entry->sizes != wanted.sizes || entry->states != wanted.states ||
          !std::equal(entry->expressions.begin(), entry->expressions.end(),
                      wanted.expressions.begin(), wanted.expressions.end(), equal)) {
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
