#include "tests/simt/simt_block.h"

#include <sstream>
#include <string_view>
#include <utility>

#include "tests/simt/simt_image.h"
#include "tests/simt/simt_memory.h"

uint3 threadIdx{}, blockIdx{};
dim3 blockDim{}, gridDim{};

namespace nanoflex::simt {

namespace {

Block* running = nullptr;

uint3 index_in(const dim3& extent, unsigned number) {
  return {number % extent.x, number / extent.x % extent.y, number / extent.x / extent.y};
}

bool same_place(const Location& a, const Location& b) {
  const bool same_file = a.file == b.file || std::string_view(a.file) == b.file;
  return a.line == b.line && same_file;
}

bool same_collective(const Collective& a, const Collective& b) {
  return a.perform == b.perform && a.mask == b.mask && same_place(a.where, b.where);
}

}  // namespace

Block* running_block() { return running; }

Block& current_block(const char* caller) {
  if (Block* block = running_block()) return *block;
  throw std::logic_error(std::string(caller) + " outside a kernel");
}

std::string to_text(const Location& where) {
  return std::string(where.file) + ":" + std::to_string(where.line);
}

std::string to_text(const uint3& index) {
  std::ostringstream text;
  text << "(" << index.x << ", " << index.y << ", " << index.z << ")";
  return text.str();
}

Block::Block(const LaunchOptions& options) : options_(options) {
  const dim3 &block = options.block, &grid = options.grid;
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.y > 65535 || grid.z > 65535) {
    throw Fault("a grid has at least one block along each axis and at most 65535 along y and z");
  }
  const size_t count = size_t{block.x} * block.y * block.z;
  if (count < 1 || count > 1024) {
    throw Fault("a block has 1 to 1024 threads, not " + std::to_string(count));
  }
  if (options.shared_bytes > kMaxSharedBytes) {
    throw Fault("a block has at most " + std::to_string(kMaxSharedBytes) +
                " bytes of shared memory, not " + std::to_string(options.shared_bytes));
  }
  for (size_t i = 0; i < count; ++i) {
    threads_.push_back(std::make_unique<Thread>());
    threads_.back()->number = static_cast<int>(i);
    threads_.back()->index = index_in(block, i);
  }
}

void Block::start(void (*body)(const void*), const void* context) {
  at_barrier_ = 0;
  votes_ = false;
  for (auto& thread : threads_) {
    thread->state = Thread::State::ready;
    thread->in_emulator = true;
    thread->open_group.clear();
    thread->groups.clear();
    thread->clock.fill(0);
    thread->clock[thread->number % kWarpLanes] = 1;
    thread->fiber.start([this, body, context, self = thread.get()] {
      self->in_emulator = false;
      body(context);
      self->in_emulator = true;
      finish(*self);
    });
  }
}

void Block::finish(Thread& thread) {
  const std::vector<AsyncCopy>* late = thread.open_group.empty() ? nullptr : &thread.open_group;
  for (const auto& group : thread.groups) {
    if (!group.empty()) late = &group;
  }
  if (late) {
    fail(thread, image::source_line(late->front().site) +
                     ": cp.async: still in flight when its thread exits");
  }
  thread.state = Thread::State::done;
}

void Block::run(uint3 index, void (*body)(const void*), const void* context) {
  memory::begin_block(options_.shared_bytes);
  blockIdx = index;
  blockDim = options_.block;
  gridDim = options_.grid;
  start(body, context);
  for (size_t done = 0; done < threads_.size();) {
    bool progress = false;
    for (auto& thread : threads_) {
      if (thread->state != Thread::State::ready) continue;
      resume(*thread);
      done += thread->state == Thread::State::done;
      progress = true;
    }
    if (!progress) throw Fault(why_stuck());
  }
}

void Block::resume(Thread& thread) {
  running = this;
  running_ = running_thread = &thread;
  threadIdx = thread.index;
  thread.fiber.resume();
  running_ = running_thread = nullptr;
  running = nullptr;
  if (!fault_.empty()) throw Fault(fault_);
}

void Block::fail(const Thread& culprit, std::string message) {
  fault_ = std::move(message);
  fault_ += "; " + describe(culprit) + " of block " + to_text(blockIdx);
  running_->fiber.suspend();
  std::terminate();  // no one resumes a thread that failed
}

bool Block::barrier(const char* name, bool vote, const Location& where) {
  Thread& self = *running_;
  const InEmulator inside(self);
  self.state = Thread::State::at_barrier;
  self.barrier = name;
  self.where = where;
  votes_ = votes_ || vote;
  if (++at_barrier_ < threads_.size()) {
    self.fiber.suspend();
    return outcome_;  // which stands until all have come to the next barrier
  }
  for (const auto& other : threads_) {
    if (std::string_view(other->barrier) == name && same_place(other->where, where)) continue;
    fail(self, to_text(where) + ": " + name + ", but " + describe(*other) + " waits at the " +
                   other->barrier + " of " + to_text(other->where));
  }
  at_barrier_ = 0;
  outcome_ = std::exchange(votes_, false);
  for (auto& thread : threads_) thread->state = Thread::State::ready;
  memory::pass_barrier();
  return outcome_;
}

void Block::collective(const Collective& collective) {
  Thread& self = *running_;
  const InEmulator inside(self);
  if (!(collective.mask >> self.number % kWarpLanes & 1)) {
    fail(self, to_text(collective.where) + ": " + collective.name +
                   " by a lane that its mask leaves out");
  }
  self.state = Thread::State::at_collective;
  self.collective = &collective;
  if (!complete(collective)) return self.fiber.suspend();
  void* lanes[kWarpLanes] = {};
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    if (!(collective.mask >> lane & 1)) continue;
    lanes[lane] = lane_of_warp(lane).collective->arguments;
  }
  collective.perform(lanes);
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    if (lanes[lane]) lane_of_warp(lane).state = Thread::State::ready;
  }
}

bool Block::complete(const Collective& collective) const {
  const size_t first = running_->number / kWarpLanes * kWarpLanes;
  // From the last lane, which the scheduler runs last: mostly one look is enough.
  for (int lane = kWarpLanes - 1; lane >= 0; --lane) {
    if (!(collective.mask >> lane & 1)) continue;
    if (first + lane >= threads_.size()) return false;
    const Thread& other = *threads_[first + lane];
    if (other.state != Thread::State::at_collective) return false;
    if (!same_collective(*other.collective, collective)) return false;
  }
  return true;
}

std::string Block::describe(const Thread& thread) const {
  return "thread " + to_text(thread.index);
}

// Nobody can go on. A collective that lacks lanes explains more than a barrier that lacks threads.
std::string Block::why_stuck() const {
  for (const auto& thread : threads_) {
    if (thread->state == Thread::State::at_collective) return why_stuck(*thread);
  }
  for (const auto& thread : threads_) {
    if (thread->state == Thread::State::at_barrier) return why_stuck(*thread);
  }
  throw std::logic_error("a block is stuck and no thread waits");
}

std::string Block::why_stuck(const Thread& waiting) const {
  const bool at_barrier = waiting.state == Thread::State::at_barrier;
  const Location& where = at_barrier ? waiting.where : waiting.collective->where;
  const std::string text = to_text(where) + ": " + describe(waiting) + " waits at " +
                           (at_barrier ? waiting.barrier : waiting.collective->name) + " for ";
  const size_t first = at_barrier ? 0 : waiting.number / kWarpLanes * kWarpLanes;
  const size_t end = at_barrier ? threads_.size() : first + kWarpLanes;
  for (size_t i = first; i < end; ++i) {
    if (!at_barrier && !(waiting.collective->mask >> (i - first) & 1)) continue;
    if (i >= threads_.size()) {
      return text + "lane " + std::to_string(i - first) + ", which the block does not have";
    }
    const std::string absence = why_absent(*threads_[i], waiting);
    if (!absence.empty()) return text + describe(*threads_[i]) + ", which " + absence;
  }
  throw std::logic_error("a thread waits for nobody");
}

std::string Block::why_absent(const Thread& other, const Thread& waiting) const {
  using State = Thread::State;
  if (other.state == State::done) return "has exited";
  if (other.state == State::at_barrier) {
    if (waiting.state == State::at_barrier) return "";
    return std::string("waits at ") + other.barrier + " of " + to_text(other.where);
  }
  if (waiting.state == State::at_collective &&
      same_collective(*other.collective, *waiting.collective)) {
    return "";
  }
  return std::string("waits at ") + other.collective->name + " of " +
         to_text(other.collective->where);
}

void run(const LaunchOptions& options, void (*body)(const void*), const void* context) {
  Block block(options);
  memory::begin_launch();
  for (unsigned z = 0; z < options.grid.z; ++z) {
    for (unsigned y = 0; y < options.grid.y; ++y) {
      for (unsigned x = 0; x < options.grid.x; ++x) block.run({x, y, z}, body, context);
    }
  }
}

}  // namespace nanoflex::simt
