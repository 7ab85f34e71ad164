#include "trainer/part_clock.h"

#include <ATen/SequenceNumber.h>
#include <ATen/record_function.h>

#include <chrono>
#include <memory>
#include <set>
#include <stdexcept>
#include <vector>

#include "attention/attention.h"
#include "model/head.h"
#include "trainer/memory.h"
#include "trainer/optimizers.h"

namespace nanoflex {
namespace {

enum Part { kHead, kAttention, kProducts, kOptimizer, kRest, kParts };
constexpr const char* kNames[kParts] = {"head", "attention", "other products", "optimizer", "rest"};

Part part_of_scope(const std::string& name) {
  if (name == kHeadScope) return kHead;
  if (name == kAttentionScope) return kAttention;
  return name == kOptimizerScope ? kOptimizer : kRest;
}

bool is_product(const std::string& name) {
  static const std::set<std::string> products = {"aten::mm",      "aten::addmm",  "aten::bmm",
                                                 "aten::baddbmm", "aten::linear", "aten::matmul"};
  return products.count(name) > 0;
}

// The operations that run now, innermost last, and what autograd will run backward for which part.
class Stack {
 public:
  explicit Stack(at::Device device) : device_(device) { synchronize(device_); }

  void begin(const at::RecordFunction& function) {
    const Part part = part_of(function, current());
    go_on(current(), part);
    open_.push_back({part, at::sequence_number::peek()});
  }

  void end(const at::RecordFunction& function) {
    if (open_.empty()) return;  // began before the clock
    const Open last = open_.back();
    open_.pop_back();
    go_on(last.part, current());
    if (function.scope() == at::RecordScope::USER_SCOPE && last.part != kRest) {
      forward_[at::sequence_number::peek()] = {last.sequence, last.part};
    }
  }

  std::map<std::string, double> seconds() {
    charge(current());
    std::map<std::string, double> result;
    for (int part = 0; part < kParts; ++part) result[kNames[part]] = seconds_[part];
    return result;
  }

 private:
  using Clock = std::chrono::steady_clock;
  struct Open {
    Part part;
    uint64_t sequence;  // autograd's number of the next node
  };
  struct Nodes {
    uint64_t first;
    Part part;
  };

  Part current() const { return open_.empty() ? kRest : open_.back().part; }

  // A GPU is waited for only where parts change, and else left to work ahead.
  void go_on(Part from, Part to) {
    if (from != to) charge(from);
  }

  void charge(Part part) {
    synchronize(device_);
    const Clock::time_point now = Clock::now();
    seconds_[part] += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }

  Part part_of(const at::RecordFunction& function, Part around) const {
    if (function.scope() == at::RecordScope::USER_SCOPE) return part_of_scope(function.name());
    if (function.scope() == at::RecordScope::BACKWARD_FUNCTION) {
      const auto number = static_cast<uint64_t>(function.seqNr());
      const auto found = forward_.upper_bound(number);  // the first that ended after this node
      if (found != forward_.end() && found->second.first <= number) return found->second.part;
    }
    return around == kRest && is_product(function.name()) ? kProducts : around;
  }

  const at::Device device_;
  Clock::time_point last_ = Clock::now();
  std::vector<Open> open_;
  std::map<uint64_t, Nodes> forward_;  // by the number after the last node
  double seconds_[kParts] = {};
};

// Of all threads: autograd goes backward through a GPU's work in a thread of its own, to which it
// hands the callbacks of the one that waits for it.
std::unique_ptr<Stack>& stack() {
  static std::unique_ptr<Stack> current;
  return current;
}

}  // namespace

PartClock::PartClock(at::Device device) {
  if (stack()) throw std::logic_error("[bench] one PartClock at a time");
  stack() = std::make_unique<Stack>(device);
  handle_ = at::addThreadLocalCallback(
      at::RecordFunctionCallback(
          [](const at::RecordFunction& function) -> std::unique_ptr<at::ObserverContext> {
            if (stack()) stack()->begin(function);
            return nullptr;
          },
          [](const at::RecordFunction& function, at::ObserverContext*) {
            if (stack()) stack()->end(function);
          })
          .scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION,
                   at::RecordScope::USER_SCOPE}));
}

PartClock::~PartClock() {
  if (stack()) stop();
}

std::map<std::string, double> PartClock::stop() {
  at::removeCallback(handle_);
  const auto seconds = stack()->seconds();
  stack().reset();
  return seconds;
}

}  // namespace nanoflex
