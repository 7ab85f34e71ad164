// Block masks remembered for as long as what they were made of stays the same.
#include <deque>
#include <mutex>
#include <optional>

#include "attention/flex/block_mask.h"
#include "attention/flex/mask_judge.h"

namespace nanoflex::flex {
namespace {

constexpr size_t kMostKept = 16;

// How often each captured tensor was written to, in order of appearance; nothing where that is not
// counted (inference tensors).
using Versions = std::optional<std::vector<int64_t>>;

void collect_versions(const Expression& expression, Versions& versions) {
  const Node& node = expression.node();
  if (node.tensor.defined() && node.tensor.is_inference()) versions.reset();
  if (versions && node.tensor.defined()) versions->push_back(node.tensor._version());
  for (const Expression& operand : node.operands) {
    if (versions) collect_versions(operand, versions);
  }
}

Versions versions_of(const Expression& mask) {
  Versions versions = std::vector<int64_t>();
  collect_versions(mask, versions);
  return versions;
}

struct Entry {
  Expression mask;  // holds its tensors alive, so that no other can take their identity
  std::vector<int64_t> versions;
  BlockMaskOptions options;
  std::shared_ptr<const BlockMask> blocks;
};

bool same(const BlockMaskOptions& a, const BlockMaskOptions& b) {
  return a.B == b.B && a.H == b.H && a.T == b.T && a.S == b.S && a.block_size == b.block_size;
}

class Cache {
 public:
  std::shared_ptr<const BlockMask> find(const Entry& wanted) {
    const std::lock_guard lock(mutex_);
    return find_locked(wanted);
  }

  // Of two threads that made the same, the first one's stays.
  std::shared_ptr<const BlockMask> keep(Entry entry) {
    const std::lock_guard lock(mutex_);
    if (auto found = find_locked(entry)) return found;
    entries_.push_front(std::move(entry));
    if (entries_.size() > kMostKept) entries_.pop_back();
    return entries_.front().blocks;
  }

 private:
  // What is found moves to the front: the last one goes first.
  std::shared_ptr<const BlockMask> find_locked(const Entry& wanted) {
    for (size_t i = 0; i < entries_.size(); ++i) {
      const Entry& entry = entries_[i];
      if (!same(entry.options, wanted.options) || entry.versions != wanted.versions ||
          !equal(entry.mask, wanted.mask)) {
        continue;
      }
      std::rotate(entries_.begin(), entries_.begin() + i, entries_.begin() + i + 1);
      return entries_.front().blocks;
    }
    return nullptr;
  }

  std::mutex mutex_;
  std::deque<Entry> entries_;  // most recently used first
};

}  // namespace

std::shared_ptr<const BlockMask> block_mask(const Expression& mask,
                                            const BlockMaskOptions& options) {
  static Cache cache;
  const auto make = [&] {
    return std::make_shared<const BlockMask>(make_block_mask(mask, options));
  };
  const Versions versions = versions_of(mask);
  if (!versions) return make();
  Entry entry = {.mask = mask, .versions = *versions, .options = options, .blocks = nullptr};
  if (auto found = cache.find(entry)) return found;
  entry.blocks = make();
  return cache.keep(std::move(entry));
}

}  // namespace nanoflex::flex
