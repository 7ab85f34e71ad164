// A block of threads under execution: who waits where, and what their barriers order.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "tests/simt/simt.h"
#include "tests/simt/simt_fiber.h"

namespace nanoflex::simt {

constexpr int kWarpLanes = 32;
constexpr uint32_t kAllLanes = 0xFFFFFFFFu;
constexpr size_t kMaxSharedBytes = 227 << 10;  // of the largest GPU known here, sm_90 and sm_100

/// An operation of a warp for which all lanes of `mask` must meet. The last to come performs it:
/// lanes[l] is what lane l brought, null where the mask leaves it out.
struct Collective {
  const char* name;
  uint32_t mask;
  void* arguments;
  void (*perform)(void* const (&lanes)[kWarpLanes]);
  Location where;
};

/// Copies that a thread started and that have not arrived.
struct AsyncCopy {
  unsigned char* shared;
  std::array<unsigned char, 16> data;
  uintptr_t site;
};

struct Thread {
  enum class State { ready, at_barrier, at_collective, done };

  int number = 0;  // in the block
  uint3 index{};
  State state = State::ready;
  const char* barrier = "";                // that it waits at
  Location where;                          // of that barrier
  const Collective* collective = nullptr;  // that it waits at
  // What this thread knows of its warp: memory accesses of lane l up to clock[l] came before.
  std::array<uint32_t, kWarpLanes> clock{};
  std::vector<AsyncCopy> open_group;
  std::deque<std::vector<AsyncCopy>> groups;
  bool in_emulator = false;
  Fiber fiber;
};

/// While one lives, its thread's accesses are the emulator's own and not checked. Needed because
/// the linker may give the emulator instrumented copies of the standard library's templates.
class InEmulator {
 public:
  explicit InEmulator(Thread& thread) : thread_(thread), before_(thread.in_emulator) {
    thread.in_emulator = true;
  }
  ~InEmulator() { thread_.in_emulator = before_; }
  InEmulator(const InEmulator&) = delete;
  InEmulator& operator=(const InEmulator&) = delete;

 private:
  Thread& thread_;
  bool before_;
};

class Block {
 public:
  explicit Block(const LaunchOptions& options);

  void run(uint3 index, void (*body)(const void*), const void* context);

  /// The calls below come from the running thread.
  /// Returns whether any thread voted yes.
  bool barrier(const char* name, bool vote, const Location& where);
  void collective(const Collective& collective);
  /// Ends the block: its run() throws Fault with this message.
  [[noreturn]] void fail(const Thread& culprit, std::string message);
  [[noreturn]] void fail(std::string message) { fail(*running_, std::move(message)); }

  Thread& thread() { return *running_; }
  Thread& lane_of_warp(int lane) {
    return *threads_[running_->number / kWarpLanes * kWarpLanes + lane];
  }
  uint3 index_of(int number) const { return threads_[number]->index; }

 private:
  void start(void (*body)(const void*), const void* context);
  void finish(Thread& thread);
  void resume(Thread& thread);
  std::string describe(const Thread& thread) const;
  bool complete(const Collective& collective) const;
  std::string why_stuck() const;
  std::string why_stuck(const Thread& waiting) const;
  /// What `other` does instead of waiting with `waiting`; "" if it does that.
  std::string why_absent(const Thread& other, const Thread& waiting) const;

  LaunchOptions options_;
  std::vector<std::unique_ptr<Thread>> threads_;
  Thread* running_ = nullptr;
  size_t at_barrier_ = 0;
  bool votes_ = false, outcome_ = false;  // of threads at a barrier; of the last one passed
  std::string fault_;
};

/// The block whose thread is running, or null on the host; and that thread, at hand for the hooks.
Block* running_block();
inline Thread* running_thread = nullptr;
/// As running_block(), but throws std::logic_error on the host.
Block& current_block(const char* caller);

std::string to_text(const Location& where);  // "file:line"
std::string to_text(const uint3& index);     // "(x, y, z)"

}  // namespace nanoflex::simt
