#undef _FORTIFY_SOURCE  // its longjmp refuses to change stacks
#include "tests/simt/simt_fiber.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <new>
#include <utility>

namespace nanoflex::simt {

namespace {
constexpr size_t kGuardBytes = 64 << 10;
Fiber* entering = nullptr;
}  // namespace

Fiber::Fiber() {
  void* pages = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  mprotect(pages, kGuardBytes, PROT_NONE);
  stack_ = static_cast<char*>(pages) + kGuardBytes;
}

Fiber::~Fiber() { munmap(stack_ - kGuardBytes, kGuardBytes + kStackBytes); }

void Fiber::start(std::function<void()> body) {
  body_ = std::move(body);
  fresh_ = true;
}

void Fiber::enter() {
  Fiber* self = entering;
  self->body_();
  self->suspend();
}

// ucontext makes the stack; jumps then change between stacks without ucontext's system calls.
void Fiber::resume() {
  if (_setjmp(outside_)) return;
  if (!fresh_) _longjmp(inside_, 1);
  fresh_ = false;
  entering = this;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = stack_;
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, &Fiber::enter, 0);
  setcontext(&context);
}

void Fiber::suspend() {
  if (!_setjmp(inside_)) _longjmp(outside_, 1);
}

}  // namespace nanoflex::simt
