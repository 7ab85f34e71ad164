// A function that runs on a stack of its own and can be suspended anywhere.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <functional>

namespace nanoflex::simt {

class Fiber {
 public:
  static constexpr size_t kStackBytes = 256 << 10;

  Fiber();  // throws std::bad_alloc
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Makes the next resume() run `body` from its start; what ran before is abandoned, unwound by no
  /// one.
  void start(std::function<void()> body);
  /// Runs the body until it suspends or returns. Resuming a body that has returned is an error.
  void resume();
  /// Called by the body: returns to whoever resumed it.
  void suspend();

  bool owns(const void* address) const {
    return static_cast<size_t>(static_cast<const char*>(address) - stack_) < kStackBytes;
  }

 private:
  static void enter();

  char* stack_ = nullptr;
  std::function<void()> body_;
  bool fresh_ = true;
  std::jmp_buf inside_, outside_;
};

}  // namespace nanoflex::simt
