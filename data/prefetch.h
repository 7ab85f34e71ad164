// A thread that keeps a few items ready.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <stop_token>
#include <thread>

namespace nanoflex::data {

// Calls `produce` on a thread of its own, at most `depth` items ahead. For one consumer.
template <typename Item>
class Prefetch {
 public:
  explicit Prefetch(std::function<Item()> produce, size_t depth = 2)
      : produce_(std::move(produce)),
        depth_(depth),
        thread_([this](const std::stop_token& stop) { run(stop); }) {}

  // The next item, waited for. What `produce` threw is thrown here, after the items before it, and
  // again on every later call.
  Item next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !ready_.empty() || error_; });
    if (ready_.empty()) std::rethrow_exception(error_);
    Item item = std::move(ready_.front());
    ready_.pop_front();
    changed_.notify_all();
    return item;
  }

 private:
  void run(const std::stop_token& stop) {
    try {
      while (!stop.stop_requested()) {
        Item item = produce_();
        std::unique_lock lock(mutex_);
        if (!changed_.wait(lock, stop, [this] { return ready_.size() < depth_; })) return;
        ready_.push_back(std::move(item));
        changed_.notify_all();
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      error_ = std::current_exception();
      changed_.notify_all();
    }
  }

  std::function<Item()> produce_;
  size_t depth_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Item> ready_;
  std::exception_ptr error_;
  std::jthread thread_;  // last, so that it has ended before the rest goes
};

}  // namespace nanoflex::data
